"""The verbs of the command line, a module each.

Each module has ``register(subparsers)``, which adds the verb's options, and a function that takes the parsed
arguments and gives the exit code; heavy imports wait until that function needs them.
"""
