// The picture of the frontier, the table of the networks, and the commands of the one that is selected.

function facts(row) {
  const pairs = [
    hasTarget(row) ? ['target', `${percent(row.target_macs)} % MACs`] : ['b', general(row.b)],
    ['MACs', `${percent(row.macs_ratio)} %`], ['filters', `${percent(row.filter_keep_ratio)} %`],
    ['params', `${percent(row.params_ratio)} %`], ['accuracy val', number(row.accuracy_val)],
    ['drop val', interval(row, 'val')],
  ];
  if (Number.isFinite(row.accuracy_test)) {
    pairs.push(['accuracy test', number(row.accuracy_test)], ['drop test', interval(row, 'test')]);
  }
  return row.network ? [...pairs, ['network', row.network]] : pairs;
}

function titleOf(row) {
  if (row.chosen) return `${row.trial}: the row to deploy`;
  return row.on_frontier ? `${row.trial}, on the frontier` : row.trial;
}

// The points of one row: val, and test where it was measured, with the ends of the accuracy's interval.
function pointsOf(row) {
  return ['val', 'test'].filter((split) => Number.isFinite(row[`accuracy_${split}`])).map((split) => {
    const base = row[`base_accuracy_${split}`];
    const [low, high] = [row[`drop_${split}_high`], row[`drop_${split}_low`]].map(
      (drop) => (Number.isFinite(drop) && Number.isFinite(base) ? base - drop : null));
    return { row, split, macs: 100 * row.macs_ratio, accuracy: row[`accuracy_${split}`], low, high };
  });
}

function baselinePoints() {
  return others.flatMap((entry) => ['val', 'test'].map(
    (split) => ({ entry, split, macs: 100 * entry.macs_ratio, accuracy: entry[`accuracy_${split}`] })))
    .filter((point) => Number.isFinite(point.macs) && Number.isFinite(point.accuracy));
}

function frontierLegend() {
  const entries = goalLegend();
  entries.push(['circle', 'var(--ink)', 'val (filled)'], ['square', 'var(--ink)', 'test (hollow)', { hollow: true }],
    ['star', BASE_COLOUR, 'base model']);
  methods.forEach((method) => entries.push([...methodLook(method), method]));
  legend(document.querySelector('#frontier .legend'), entries);
}

// Points of the frontier without those that collapsed: more than ten times the median drop, and ten points.
function settledPoints(points) {
  const onFrontier = points.filter((point) => point.row.on_frontier);
  if (!onFrontier.length) return points;
  const drops = onFrontier.map((point) => point.row.drop_val).sort((a, b) => a - b);
  const most = 10 * Math.max(1, drops[Math.floor((drops.length - 1) / 2)]);
  return onFrontier.filter((point) => point.row.drop_val <= most);
}

// These, the base model and whatever is more accurate set the axis; what is far below is moved to its edge and said.
function accuracyDomain(points, baselines) {
  const settled = settledPoints(points).flatMap((point) => [point.accuracy, point.low, point.high]);
  settled.push(report.base.accuracy_val, report.base.accuracy_test);
  const every = [...points, ...baselines].map((point) => point.accuracy);
  const best = Math.max(...settled.filter(Number.isFinite));
  const [low, high] = extent([...settled, ...every.filter((accuracy) => accuracy > best)], 0.06);
  const lowest = Math.min(low, ...every.filter((accuracy) => accuracy >= high - 4 * (high - low)));
  return [lowest < low ? lowest - 0.03 * (high - lowest) : low, high];
}

function drawFrontier(width, rows, onSelect) {
  const points = rows.flatMap(pointsOf);
  const baselines = baselinePoints();
  const y = accuracyDomain(points, baselines);
  const x = extent([...points, ...baselines].map((point) => point.macs).concat(100), 0.05);
  const plot = frame({ width, height: Math.min(460, 240 + width / 4), x, y, label: 'accuracy over MACs',
    xLabel: 'MACs, % of the base model', yLabel: 'accuracy, %' });
  plot.said = []; // where a text on a point below the axis stands
  drawBase(plot);
  const line = points.filter((point) => point.row.on_frontier && point.split === 'val').sort((a, b) => a.macs - b.macs);
  if (line.length > 1) {
    plot.node.append(path(line.map((point) => [plot.x(point.macs), plot.y(Math.max(point.accuracy, y[0]))]),
      { class: 'line', stroke: 'var(--quiet)' }));
  }
  baselines.forEach((point) => drawBaseline(plot, point, y[0]));
  points.sort((a, b) => a.row.on_frontier - b.row.on_frontier).forEach((point) => drawPoint(plot, point, y[0], onSelect));
  return plot.node;
}

function drawBase(plot) {
  for (const split of ['val', 'test']) {
    const accuracy = report.base[`accuracy_${split}`];
    if (!Number.isFinite(accuracy)) continue;
    const [x, y] = [plot.x(100), plot.y(accuracy)];
    plot.node.append(
      svg('line', { class: 'interval', x1: plot.box.left, x2: plot.box.right, y1: y, y2: y, stroke: BASE_COLOUR,
        'stroke-dasharray': split === 'val' ? '6 4' : '2 4' }),
      mark('star', x, y, BASE_COLOUR, { hollow: split === 'test' }),
      target(x, y, `base model, ${split}`, [['accuracy', `${number(accuracy)} %`],
        ['images', String(report.base[`images_${split}`] ?? 'unknown')], ['MACs', '100 %']]),
    );
  }
}

// The height of a point; one that is below the axis stands at its edge, with its accuracy as text where there is room.
function heightOf(plot, x, accuracy, lowest) {
  const y = plot.y(Math.max(accuracy, lowest));
  if (accuracy < lowest && !plot.said.some((other) => Math.abs(other - x) < 50)) {
    plot.said.push(x);
    const [end, anchor] = x + 55 > plot.box.right ? [x - 10, 'end'] : [x + 10, 'start'];
    plot.node.append(svg('text', { x: end, y: y + 4, 'text-anchor': anchor }, `↓ ${number(accuracy, 1)}`));
  }
  return y;
}

function drawPoint(plot, point, lowest, onSelect) {
  const { row, split } = point;
  const x = plot.x(point.macs) + (split === 'test' ? 5 : 0); // so that the two intervals can be told apart
  const y = heightOf(plot, x, point.accuracy, lowest);
  const look = { hollow: split === 'test', faint: !row.on_frontier, r: row.on_frontier ? 5.5 : 4 };
  const colour = goalColour(row);
  if (row.on_frontier && point.low !== null && point.high !== null && point.high > lowest) {
    const ends = { x1: x, x2: x, y1: plot.y(Math.max(point.low, lowest)), y2: plot.y(point.high) };
    plot.node.append(svg('line', { class: 'interval', stroke: colour, ...ends }));
  }
  if (row.chosen) plot.node.append(svg('circle', { class: 'ring', cx: x, cy: y, r: 10 }));
  plot.node.append(mark(split === 'val' ? 'circle' : 'square', x, y, colour, look));
  if (row.chosen && split === 'val') {
    plot.node.append(svg('text', { x: x + 12, y: y + 18 }, 'deploy'));
  }
  plot.node.append(target(x, y, `${titleOf(row)} (${split})`, facts(row), row.commands ? () => onSelect(row) : null));
}

function drawBaseline(plot, point, lowest) {
  const x = plot.x(point.macs);
  const y = heightOf(plot, x, point.accuracy, lowest);
  const [shape, colour] = methodLook(point.entry.method);
  plot.node.append(
    mark(shape, x, y, colour, { hollow: point.split === 'test', r: 4 }),
    target(x, y, `${point.entry.method} (${point.split})`, Object.entries(point.entry.shown)),
  );
}

function milliseconds(row, batch) {
  const [base, pruned] = [row[`latency_ms_base_${batch}`], row[`latency_ms_${batch}`]];
  return Number.isFinite(base) && Number.isFinite(pruned) ? `${general(base)}→${general(pruned)}` : UNKNOWN;
}

// A button where a click on the row shows commands: the keyboard reaches it, and its click is one on the row.
function trialCell(row) {
  const name = row.chosen ? `${row.trial} (deploy)` : row.trial;
  return row.commands ? html('button', { type: 'button' }, name) : name;
}

const COLUMNS = [
  { heading: 'trial', value: (row) => row.trial, text: trialCell, left: true },
  { heading: 'b', value: goalPlace, text: (row) => (hasTarget(row) ? `to ${percent(row.target_macs)} %` : general(row.b)) },
  { heading: 'filters %', value: (row) => row.filter_keep_ratio, text: (row) => percent(row.filter_keep_ratio) },
  { heading: 'MACs %', value: (row) => row.macs_ratio, text: (row) => percent(row.macs_ratio) },
  { heading: 'params %', value: (row) => row.params_ratio, text: (row) => percent(row.params_ratio) },
  { heading: 'drop val', value: (row) => row.drop_val, text: (row) => interval(row, 'val') },
  { heading: 'drop test', value: (row) => row.drop_test, text: (row) => interval(row, 'test') },
  {
    heading: 'ms by table',
    value: (row) => row.latency_ms_table,
    text: (row) => milliseconds(row, 'table'),
    only: (rows) => rows.some((row) => Number.isFinite(row.latency_ms_table)),
  },
  { heading: 'ms b1', value: (row) => row.latency_ms_b1, text: (row) => milliseconds(row, 'b1') },
  { heading: 'ms b256', value: (row) => row.latency_ms_b256, text: (row) => milliseconds(row, 'b256') },
  { heading: 'minutes', value: (row) => row.seconds, text: (row) => number(row.seconds, 1, 1 / 60) },
  { heading: 'status', value: (row) => row.status, text: (row) => row.status, left: true },
  { heading: 'network', value: (row) => row.network, text: (row) => row.network ?? UNKNOWN, left: true },
];

function networkTable(onSelect) {
  const columns = COLUMNS.filter((column) => !column.only || column.only(report.rows));
  return sortableTable(columns, report.rows, (row) => {
    const classes = [row.commands ? 'selectable' : '', row.on_frontier ? '' : 'other', row.chosen ? 'chosen' : ''].join(' ');
    const line = html('tr', { class: classes, 'data-trial': row.trial });
    if (row.commands) line.addEventListener('click', () => onSelect(row));
    return line;
  });
}

function showCommands(row) {
  const place = section('use');
  place.querySelector('#use-note').textContent = `For ${titleOf(row)}; another one: click it in the picture or the table.`;
  place.querySelector('pre').textContent = row.commands;
  for (const line of document.querySelectorAll('#table tr.selectable')) {
    line.classList.toggle('selected', line.dataset.trial === row.trial);
  }
}

function showNetworks() {
  if (!report.rows.length) return;
  const drawn = report.rows.filter((row) => Number.isFinite(row.macs_ratio) && row.status === 'COMPLETE');
  scrolling('table', 'table of networks', networkTable(showCommands));
  document.getElementById('table-note').textContent = report.table_note;
  if (drawn.length) {
    const place = section('frontier');
    frontierLegend();
    responsive(place.querySelector('.chart'), (width) => drawFrontier(width, drawn, showCommands));
    document.getElementById('frontier-note').textContent = report.frontier_note;
  }
  const first = report.rows.find((row) => row.chosen) ?? report.rows.find((row) => row.on_frontier);
  if (first?.commands) showCommands(first);
}

function showBaselines() {
  if (!report.baselines.length) return;
  const firstKnown = (heading) => report.baselines.map((entry) => entry.values[heading]).find(isKnown);
  const columns = Object.keys(report.baselines[0].shown).map((heading) => ({
    heading: heading.replaceAll('_', ' '),
    value: (entry) => entry.values[heading],
    text: (entry) => entry.shown[heading],
    left: typeof firstKnown(heading) === 'string',
  }));
  scrolling('baselines', 'table of baselines', sortableTable(columns, report.baselines, () => html('tr')));
}
