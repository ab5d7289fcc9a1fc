// What remains of the page, and its beginning.

function showFailures() {
  const failed = report.rows.filter((row) => row.error);
  if (!failed.length) return;
  section('failures').querySelector('.entries').replaceChildren(...failed.map((row) => html('details', {},
    html('summary', {}, html('strong', {}, row.trial), ` (b = ${general(row.b)}): ${row.error.trim().split('\n', 1)[0]}`),
    html('pre', {}, row.error))));
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
showFailures();
showOrigin();
showNavigation();
