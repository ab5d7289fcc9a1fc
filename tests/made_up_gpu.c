/* What torch asks of CUDA before a kernel runs: one device, one context, streams and events. A kernel that is
   launched, or memory that is copied, ends the process: made_up_gpu.py computes everything on the CPU. */
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define OK { return 0; }
#define WORK { return real_work(__func__); }

static char handle[8];

static int real_work(const char *name) {
    fprintf(stderr, "the made-up GPU was given real work: %s\n", name);
    raise(SIGABRT);
    return 1;
}

int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaSetDevice(int device) OK
int cudaDriverGetVersion(int *version) { *version = 99000; return 0; }
int cudaDeviceSynchronize(void) OK
int cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -1; return 0; }
int cudaGetLastError(void) OK
int cudaPeekAtLastError(void) OK

int cudaStreamCreateWithPriority(void **stream, unsigned flags, int priority) { *stream = handle; return 0; }
int cudaStreamIsCapturing(void *stream, int *status) { *status = 0; return 0; }
int cudaStreamQuery(void *stream) OK
int cudaStreamSynchronize(void *stream) OK
int cudaStreamWaitEvent(void *stream, void *event, unsigned flags) OK

int cudaEventCreateWithFlags(void **event, unsigned flags) { *event = handle; return 0; }
int cudaEventDestroy(void *event) OK
int cudaEventQuery(void *event) OK
int cudaEventRecord(void *event, void *stream) OK
int cudaEventRecordWithFlags(void *event, void *stream, unsigned flags) OK
int cudaEventSynchronize(void *event) OK
int cudaEventElapsedTime(float *milliseconds, void *begin, void *end) { *milliseconds = 1; return 0; }

int cudaLaunchKernel(void *function) WORK
int cudaLaunchKernelExC(void *config) WORK
int cudaMemcpy(void *to, void *from, size_t bytes, int kind) WORK
int cudaMemcpyAsync(void *to, void *from, size_t bytes, int kind, void *stream) WORK
int cudaMemset(void *to, int value, size_t bytes) WORK
int cudaMemsetAsync(void *to, int value, size_t bytes, void *stream) WORK
int cudaMalloc(void **memory, size_t bytes) WORK

int cuInit(unsigned flags) OK
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { *flags = 0; *active = 1; return 0; }
int cuCtxGetCurrent(void **context) { *context = handle; return 0; }
