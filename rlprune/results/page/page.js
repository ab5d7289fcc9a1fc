// What remains of the page, and its beginning.

function showFailures() {
  const failed = report.rows.filter((row) => row.error || row.status === 'FAILED');
  if (!failed.length) return;
  const errorOf = (row) => row.error.trim() || 'no error was recorded';
  section('failures').querySelector('.entries').replaceChildren(...failed.map((row) => html('details', {},
    html('summary', {}, html('strong', {}, row.trial), ` (${goalOf(row)}): ${errorOf(row).split('\n', 1)[0]}`),
    html('pre', {}, errorOf(row)))));
}

// What a setting was before a copy and is after it; those that stayed are left out.
function changed(before, after) {
  const names = Object.keys(after).filter((name) => after[name] !== before[name]);
  const text = (value) => (typeof value === 'number' ? general(value) : String(value ?? UNKNOWN));
  return names.map((name) => `${name} ${text(before[name])}→${text(after[name])}`).join(', ');
}

// The copies that members of a population made, from the first event of each (its own start) on.
function copies(row) {
  return (row.lineage ?? []).slice(1).map((event, index) => ({
    trial: row.trial, ...event, changes: changed({ b: row.lineage[index].b, ...row.lineage[index].settings },
      { b: event.b, ...event.settings }),
  }));
}

function showLineage() {
  const events = report.rows.flatMap(copies).sort((a, b) => a.step - b.step);
  if (!events.length) return;
  scrolling('lineage', 'copies within the population', sortableTable([
    { heading: 'after step', value: (event) => event.step, text: (event) => String(event.step) },
    { heading: 'member', value: (event) => event.trial, text: (event) => event.trial, left: true },
    { heading: 'copied', value: (event) => event.donor, text: (event) => event.donor, left: true },
    { heading: 'drop left', value: (event) => event.left?.drop_val, text: (event) => number(event.left?.drop_val) },
    { heading: 'MACs % left', value: (event) => event.left?.macs_ratio, text: (event) => percent(event.left?.macs_ratio) },
    { heading: 'settings changed', value: (event) => event.changes, text: (event) => event.changes || 'none', left: true },
  ], events, () => html('tr')));
}

function showOrigin() {
  const place = section('origin');
  place.querySelector('pre').textContent = report.reproduce;
  const lines = report.environment.map(([name, text]) => html('tr', {}, html('th', { class: 'left', scope: 'row' }, name),
    html('td', { class: 'left' }, text)));
  scrolling('origin', 'machine and versions', html('table', {}, html('tbody', {}, ...lines)));
  document.getElementById('config').textContent = report.config;
}

function showTheme() {
  const button = document.getElementById('theme');
  const dark = () => getComputedStyle(document.documentElement).colorScheme === 'dark'
    || (document.documentElement.style.colorScheme === '' && matchMedia('(prefers-color-scheme: dark)').matches);
  const name = () => { button.textContent = dark() ? 'Light' : 'Dark'; };
  button.addEventListener('click', () => {
    document.documentElement.style.colorScheme = dark() ? 'light' : 'dark';
    name();
  });
  name();
}

function showNavigation() {
  document.querySelector('nav').replaceChildren(...[...document.querySelectorAll('main section:not([hidden])')].map(
    (part) => html('a', { href: `#${part.id}` }, part.querySelector('h2').textContent)));
}

document.getElementById('summary').textContent = report.summary;
showTheme();
showNetworks();
showBaselines();
showFilters();
showLearning();
showSettings();
showLineage();
showFailures();
showOrigin();
showNavigation();
