// Filters kept by layer, the agents' curves, what each setting did, the lineage.

function showFilters() {
  const layers = Object.keys(report.base_widths);
  const rows = report.rows.filter((row) => Object.keys(row.widths).length);
  if (!layers.length || !rows.length) return;
  const heading = html('tr', {}, html('th', { class: 'left' }, 'trial'), html('th', {}, 'MACs %'),
    ...layers.map((layer) => html('th', { scope: 'col' }, html('span', {}, layer))));
  const lines = rows.map((row) => html('tr', {}, html('th', { class: 'left', scope: 'row' }, row.trial),
    html('td', {}, percent(row.macs_ratio)), ...layers.map((layer) => heatCell(row, layer))));
  const table = html('table', { class: 'heat' }, html('thead', {}, heading), html('tbody', {}, ...lines));
  scrolling('filters', 'filters kept by layer', table);
}

// A share of a layer's filters; its class chooses letters that can be read on the shade, light or dark.
function heatCell(row, layer) {
  const [kept, all] = [row.widths[layer], report.base_widths[layer]];
  const share = Math.round((100 * kept) / all);
  const shade = share > 86 ? 'full' : share > 66 ? 'most' : 'some';
  const cell = html('td', { class: `cell ${shade}` }, number(share, 0));
  cell.style.background = `color-mix(in oklab, var(--heat) ${Math.max(4, share)}%, var(--page))`;
  return describe(cell, `${row.trial}, ${layer}`, [['kept', `${kept} of ${all} filters`], ['share', `${share} %`]]);
}

function chooser(holder, names, draw) {
  const list = holder.querySelector('select');
  list.replaceChildren(...names.map((name) => html('option', {}, name)));
  list.addEventListener('change', () => draw(list.selectedIndex));
  draw(0);
}

function showLearning() {
  const trials = Object.keys(report.curves);
  if (!trials.length) return;
  const place = section('learning');
  chooser(place, trials, (index) => place.querySelector('.panels').replaceChildren(
    ...report.curves[trials[index]].map(learningPanel)));
}

// A curve has a list for each field; here they are joined to one entry an iteration.
const entriesOf = ({ group, ...fields }) => fields.iteration.map((_, index) =>
  Object.fromEntries(Object.entries(fields).map(([name, values]) => [name, values[index]])));

function learningPanel(curve) {
  const [group, history] = [curve.group, entriesOf(curve)];
  const last = history[history.length - 1];
  const holder = html('div');
  responsive(holder, (width) => html('div', {}, drawRewards(width, group, history), drawEntropy(width, group, history)));
  return html('div', { class: 'panel' }, html('h3', {}, group),
    html('p', {}, `best reward ${general(Math.max(...history.map((entry) => entry.reward_max)))}, `
      + `keeps ${general(last.mode_kept)} in the end`), holder);
}

const iterations = (history) => [history[0].iteration, Math.max(history[history.length - 1].iteration, history[0].iteration + 1)];

function drawRewards(width, group, history) {
  const [low, high] = [-1, 1].map((sign) => history.map((entry) => entry.reward_mean + sign * entry.reward_std));
  const y = extent([...low, ...high, ...history.map((entry) => entry.reward_max)], 0.08);
  const plot = frame({ width, height: 120, x: iterations(history), y, bottom: 10, left: 48,
    xTicks: [], label: `rewards of ${group}`, yTicks: ticks(y, 3) });
  const at = (values) => history.map((entry, index) => [plot.x(entry.iteration), plot.y(values[index])]);
  const [colour, means] = [colourOf(0), at(history.map((entry) => entry.reward_mean))];
  plot.node.append(path([...at(low), ...at(high).reverse()], { class: 'band', fill: colour }),
    path(means, { class: 'line', stroke: colour }));
  history.forEach((entry, index) => plot.node.append(
    mark('circle', means[index][0], plot.y(entry.reward_max), colourOf(1), { r: 2.5 }),
    target(...means[index], `${group}, iteration ${entry.iteration}`, [['mean reward', general(entry.reward_mean)],
      ['best', general(entry.reward_max)], ['spread', general(entry.reward_std)], ['entropy', general(entry.entropy)],
      ['mean keep probability', general(entry.keep_mean)], ['mode keeps', general(entry.mode_kept)]])));
  return plot.node;
}

function drawEntropy(width, group, history) {
  const y = [0, 0.7];
  const plot = frame({ width, height: 74, x: iterations(history), y, left: 48, bottom: 22, xTicks: iterations(history),
    yTicks: [0, 0.35, 0.7], label: `entropy of ${group}` });
  plot.node.append(path(history.map((entry) => [plot.x(entry.iteration), plot.y(entry.entropy)]),
    { class: 'line', stroke: colourOf(2) }));
  return plot.node;
}

const MEASURES = [
  { name: 'MACs, % of the base', of: (row) => 100 * row.macs_ratio, objective: 'macs_ratio' },
  { name: 'drop on val, points', of: (row) => row.drop_val, objective: 'drop_val' },
];

function showSettings() {
  const rows = report.rows.filter((row) => row.status === 'COMPLETE');
  if (!report.settings.length || !rows.length) return;
  const place = section('settings');
  legend(place.querySelector('.legend'), goalLegend());
  place.querySelector('#settings-note').textContent = report.settings_note;
  chooser(place, MEASURES.map((measure) => measure.name), (index) => place.querySelector('.panels').replaceChildren(
    ...report.settings.map((setting) => settingPanel(setting, rows, MEASURES[index]))));
}

function settingPanel(setting, rows, measure) {
  const known = rows.filter((row) => row.settings[setting.name] !== undefined && Number.isFinite(measure.of(row)));
  const importance = report.importances[measure.objective]?.[setting.name];
  const range = importance?.slice(1).map((end) => number(end)).join(' to ');
  const holder = html('div');
  if (known.length) responsive(holder, (width) => drawSetting(width, setting, known, measure));
  return html('div', { class: 'panel' }, html('h3', {}, setting.name),
    html('p', {}, importance ? `importance ${number(importance[0])} (${range})` : ' '), holder);
}

function drawSetting(width, setting, rows, measure) {
  const choices = setting.choices;
  const position = (row) => (choices ? choices.indexOf(row.settings[setting.name]) : row.settings[setting.name]);
  const x = choices ? [-0.5, choices.length - 0.5] : settingDomain(setting, rows.map(position));
  const y = extent(rows.map(measure.of), 0.12);
  const left = 48;
  const names = choiceTexts(choices ?? [], (width - left) / (choices ?? []).length);
  const plot = frame({ width, height: 136 + names.height, x, y, yTicks: ticks(y, 4), log: setting.log,
    bottom: names.height, left, xTicks: choices ? [] : x, label: `${measure.name} over ${setting.name}` });
  names.texts.forEach((text, index) => {
    const [at, end] = [plot.x(index), plot.box.bottom];
    plot.node.append(svg('text', names.turned
      ? { transform: `translate(${at + 4} ${end + 6}) rotate(-90)`, 'text-anchor': 'end' }
      : { x: at, y: end + 16, 'text-anchor': 'middle' }, text));
  });
  rows.forEach((row) => {
    const [across, top] = [plot.x(position(row)), plot.y(measure.of(row))];
    plot.node.append(mark('circle', across, top, goalColour(row), { r: 4 }),
      target(across, top, row.trial, [[setting.name, String(row.settings[setting.name])], ...facts(row).slice(0, 2),
        ['drop val', interval(row, 'val')]]));
  });
  return plot.node;
}

// Choices as text below an axis: { texts, turned, height }; upright and cut to 16 letters where they do not fit side by side.
function choiceTexts(choices, room) {
  const widest = (texts) => 7 * Math.max(0, ...texts.map((text) => text.length)); // pixels, by about 7 a letter
  const whole = choices.map(String);
  if (widest(whole) <= room) return { texts: whole, turned: false, height: 24 };
  const texts = whole.map((text) => (text.length > 16 ? `${text.slice(0, 15)}…` : text));
  return { texts, turned: true, height: 12 + widest(texts) };
}

function settingDomain(setting, values) {
  const [low, high] = [Math.min(setting.low ?? Infinity, ...values), Math.max(setting.high ?? -Infinity, ...values)];
  return low < high ? [low, high] : [low - (setting.log ? low / 2 : 0.5), high + (setting.log ? high : 0.5)];
}
