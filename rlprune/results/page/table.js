// A table whose headings sort it.

const isKnown = (value) => value !== null && value !== undefined && value !== '';

function compare(first, second) {
  return typeof first === 'number' && typeof second === 'number'
    ? first - second
    : String(first).localeCompare(String(second), 'en', { numeric: true });
}

// Rows by a column's value; what is not known comes last, in either direction.
function sorted(rows, value, direction) {
  const known = rows.filter((row) => isKnown(value(row)));
  const rest = rows.filter((row) => !isKnown(value(row)));
  return [...known.sort((a, b) => direction * compare(value(a), value(b))), ...rest];
}

// Columns: { heading, value(row), text(row): text or an element, left }. makeRow(row) gives the <tr> to put the cells into.
function sortableTable(columns, rows, makeRow) {
  const lines = new Map(rows.map((row) => [row, fill(makeRow(row), {}, columns.map(
    (column) => html('td', { class: column.left ? 'left' : null }, column.text(row))))]));
  const body = html('tbody', {}, ...lines.values());
  const headings = columns.map((column) => html('th', { scope: 'col', class: column.left ? 'left' : null }));
  columns.forEach((column, index) => {
    const button = html('button', { type: 'button' }, column.heading);
    button.addEventListener('click', () => {
      const direction = headings[index].getAttribute('aria-sort') === 'ascending' ? -1 : 1;
      headings.forEach((heading) => heading.removeAttribute('aria-sort'));
      headings[index].setAttribute('aria-sort', direction > 0 ? 'ascending' : 'descending');
      body.replaceChildren(...sorted(rows, column.value, direction).map((row) => lines.get(row)));
    });
    headings[index].append(button);
  });
  return html('table', {}, html('thead', {}, html('tr', {}, ...headings)), body);
}

// Columns that are as wide as they must be: the holder scrolls, by the keyboard too.
function scrolling(id, label, table) {
  const holder = section(id).querySelector('.scroll');
  fill(holder, { tabindex: 0, role: 'region', 'aria-label': label }, []);
  holder.replaceChildren(table);
}
