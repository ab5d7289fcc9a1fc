// Scales, axes and marks.

// From the lowest to the highest value, with a margin; values that differ by no more than rounding get room.
function extent(values, margin) {
  const known = values.filter(Number.isFinite);
  let [low, high] = [Math.min(...known), Math.max(...known)];
  const least = 1e-9 * Math.max(Math.abs(low), Math.abs(high));
  if (high - low <= least) [low, high] = [low - Math.max(0.5, least), high + Math.max(0.5, least)];
  return [low - margin * (high - low), high + margin * (high - low)];
}

function scale([from, to], [start, end], log = false) {
  const bend = log ? Math.log : (value) => value;
  return (value) => start + ((bend(value) - bend(from)) / (bend(to) - bend(from))) * (end - start);
}

// About n round numbers inside a domain.
function ticks([low, high], n) {
  const rough = (high - low) / Math.max(1, n);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let index = Math.ceil(low / step); index * step <= high; index += 1) {
    found.push(Number((index * step).toPrecision(12)));
  }
  return found;
}

// The values of an axis as text: four digits, or as many as it takes to be right to a thousandth of the axis.
function tickTexts(values, [from, to]) {
  const digits = [4, 5, 6, 7, 8, 9, 10, 11, 12].find((count) => values.every(
    (value) => Math.abs(Number(value.toPrecision(count)) - value) <= 0.001 * (to - from))) ?? 12;
  return values.map((value) => String(Number(value.toPrecision(digits))));
}

// An empty plot: { node, x, y, box }. Options: width, height, x and y domains, labels, log, and how many ticks.
function frame(options) {
  const { width, height, label, left = 52, bottom = 40, top = 8, right = 12 } = options;
  const box = { left, right: width - right, top, bottom: height - bottom };
  const x = scale(options.x, [box.left, box.right], options.log);
  const y = scale(options.y, [box.bottom, box.top]);
  const node = svg('svg', { width, height, viewBox: `0 0 ${width} ${height}`, role: 'group', 'aria-label': label });
  const lines = options.yTicks ?? ticks(options.y, (box.bottom - box.top) / 45);
  const names = tickTexts(lines, options.y);
  lines.forEach((tick, index) => node.append(
    svg('line', { class: 'grid', x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }),
    svg('text', { x: box.left - 6, y: y(tick) + 4, 'text-anchor': 'end' }, names[index])));
  const columns = options.xTicks ?? ticks(options.x, (box.right - box.left) / 75);
  tickTexts(columns, options.x).forEach((text, index) => {
    const anchor = options.xTicks && columns.length === 2 ? ['start', 'end'][index] : 'middle';
    node.append(svg('text', { x: x(columns[index]), y: box.bottom + 16, 'text-anchor': anchor }, text));
  });
  if (options.xLabel) {
    const middle = (box.left + box.right) / 2;
    node.append(svg('text', { x: middle, y: height - 4, 'text-anchor': 'middle' }, options.xLabel));
  }
  if (options.yLabel) {
    const middle = (box.top + box.bottom) / 2;
    const turned = { transform: `translate(12 ${middle}) rotate(-90)`, 'text-anchor': 'middle' };
    node.append(svg('text', turned, options.yLabel));
  }
  return { node, x, y, box };
}

const SHAPES = {
  circle: (x, y, r) => svg('circle', { cx: x, cy: y, r }),
  square: (x, y, r) => svg('rect', { x: x - r, y: y - r, width: 2 * r, height: 2 * r }),
  diamond: (x, y, r) => svg('path', { d: `M${x} ${y - 1.4 * r}L${x + 1.4 * r} ${y}L${x} ${y + 1.4 * r}L${x - 1.4 * r} ${y}Z` }),
  triangle: (x, y, r) => svg('path', { d: `M${x} ${y - 1.4 * r}L${x + 1.4 * r} ${y + r}L${x - 1.4 * r} ${y + r}Z` }),
  plus: (x, y, r) => svg('path', { d: plusPath(x, y, 1.4 * r, 0.5 * r) }),
  star: (x, y, r) => svg('path', { d: starPath(x, y, 1.5 * r) }),
};

function starPath(x, y, r) {
  const corners = Array.from({ length: 10 }, (_, index) => {
    const [angle, radius] = [(index * Math.PI) / 5, index % 2 ? r / 2 : r];
    return `${x + radius * Math.sin(angle)} ${y - radius * Math.cos(angle)}`;
  });
  return `M${corners.join('L')}Z`;
}

const plusPath = (x, y, far, near) =>
  `M${x - near} ${y - far}h${2 * near}v${far - near}h${far - near}v${2 * near}h${near - far}v${far - near}`
  + `h${-2 * near}v${near - far}h${near - far}v${-2 * near}h${far - near}Z`;

function mark(shape, x, y, colour, { r = 5, hollow = false, faint = false } = {}) {
  const paint = hollow
    ? { fill: 'var(--page)', stroke: colour, 'stroke-width': 2 }
    : { fill: colour, stroke: 'var(--page)', 'stroke-width': 1 };
  return fill(SHAPES[shape](x, y, r), { ...paint, class: faint ? 'faint' : null }, []);
}

// An invisible disc around a mark: easy to hit, read aloud, and reached by the keyboard where it can be selected.
function target(x, y, title, pairs, onSelect = null) {
  const spoken = [title, ...pairs.map((pair) => pair.join(' '))].join(', ');
  const role = onSelect ? 'button' : 'img';
  const disc = svg('circle', { class: 'hit', cx: x, cy: y, r: 11, tabindex: onSelect && 0, role, 'aria-label': spoken });
  if (onSelect) {
    disc.addEventListener('click', onSelect);
    disc.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' && event.key !== ' ') return;
      event.preventDefault(); // a space would scroll the page
      onSelect();
    });
  }
  return describe(disc, title, pairs);
}

const path = (points, attributes) =>
  svg('path', { d: `M${points.map((point) => point.join(' ')).join('L')}`, ...attributes });

function legend(list, entries) {
  list.replaceChildren(...entries.map(([shape, colour, text, options]) =>
    html('li', {}, svg('svg', { width: 16, height: 16, 'aria-hidden': true }, mark(shape, 8, 8, colour, options)), text)));
}
