// Elements, the tooltip, and numbers as text. Text goes in as text nodes only, never as markup.

const report = JSON.parse(document.getElementById('data').textContent);
const SVG = 'http://www.w3.org/2000/svg';
const UNKNOWN = '–';

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null));
  return node;
}

const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// A section is hidden in the page until something is drawn into it.
function section(id) {
  const found = document.getElementById(id);
  found.hidden = false;
  return found;
}

function number(value, digits = 2, scale = 1) {
  return Number.isFinite(value) ? (scale * value).toFixed(digits) : UNKNOWN;
}

const percent = (ratio) => number(ratio, 1, 100);
const general = (value) => (Number.isFinite(value) ? String(Number(value.toPrecision(4))) : UNKNOWN);

function interval(row, split) {
  const [drop, low, high] = ['', '_low', '_high'].map((end) => row[`drop_${split}${end}`]);
  if (!Number.isFinite(drop)) return UNKNOWN;
  return Number.isFinite(low) && Number.isFinite(high) ? `${number(drop)} [${number(low)}, ${number(high)}]` : number(drop);
}

const tooltip = document.getElementById('tooltip');

function place(x, y) {
  const { width, height } = tooltip.getBoundingClientRect();
  const left = x + 14 + width > innerWidth ? x - width - 14 : x + 14;
  const top = y + 14 + height > innerHeight ? y - height - 14 : y + 14;
  tooltip.style.left = `${Math.max(4, left)}px`;
  tooltip.style.top = `${Math.max(4, top)}px`;
}

// Shows a title and pairs of name and text while the pointer is on an element or the keyboard has come to it.
function describe(node, title, pairs) {
  const show = (x, y) => {
    const entries = pairs.map(([name, text]) => [html('dt', {}, name), html('dd', {}, text)]);
    tooltip.replaceChildren(html('strong', {}, title), html('dl', {}, ...entries));
    tooltip.hidden = false;
    place(x, y);
  };
  const hide = () => { tooltip.hidden = true; };
  node.addEventListener('pointerenter', (event) => show(event.clientX, event.clientY));
  node.addEventListener('pointermove', (event) => place(event.clientX, event.clientY));
  node.addEventListener('pointerleave', hide);
  node.addEventListener('focus', () => {
    const box = node.getBoundingClientRect();
    show(box.right, box.bottom);
  });
  node.addEventListener('blur', hide);
  return node;
}

addEventListener('keydown', (event) => { if (event.key === 'Escape') tooltip.hidden = true; });

// Calls draw(width) now and whenever the width of the element changes, so that text keeps its size.
function responsive(holder, draw) {
  let drawn = 0;
  new ResizeObserver(() => {
    const width = Math.floor(holder.clientWidth);
    if (width > 0 && width !== drawn) {
      drawn = width;
      holder.replaceChildren(draw(width));
    }
  }).observe(holder);
}
