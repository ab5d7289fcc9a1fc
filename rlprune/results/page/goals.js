// How goals and methods look: a colour for each goal; a colour and a shape for each method of others.

const BASE_COLOUR = 'var(--quiet)';
const COLOURS = 6;
const colourOf = (index) => `var(--series-${index % COLOURS})`;

// What a trial is after: a drop bound b, or a target of MACs; the bounds come first.
const hasTarget = (row) => Number.isFinite(row.target_macs);
const goalOf = (row) => (hasTarget(row) ? `to ${percent(row.target_macs)} % MACs` : `b = ${general(row.b)}`);
const goalRows = report.rows.filter((row) => hasTarget(row) || Number.isFinite(row.b))
  .sort((one, other) => hasTarget(one) - hasTarget(other) || one.b - other.b || one.target_macs - other.target_macs);
const goals = [...new Set(goalRows.map(goalOf))];

// The place of a row's goal among all, null where it has none.
const goalPlace = (row) => (goals.includes(goalOf(row)) ? goals.indexOf(goalOf(row)) : null);

// The lowest and the highest bound, or target, and the colours that stand for them where there are many goals.
const RANGES = [false, true].map((targets) => {
  const values = goalRows.filter((row) => hasTarget(row) === targets).map((row) => (targets ? row.target_macs : row.b));
  return { low: values[0], high: values[values.length - 1], colours: targets ? [2, 3] : [0, 1] };
});

function goalColour(row) {
  const place = goalPlace(row);
  if (place === null) return BASE_COLOUR;
  if (goals.length <= COLOURS) return colourOf(place);
  const { low, high, colours: [from, to] } = RANGES[Number(hasTarget(row))];
  const share = high > low ? (100 * ((hasTarget(row) ? row.target_macs : row.b) - low)) / (high - low) : 0;
  return `color-mix(in oklch, ${colourOf(to)} ${share.toFixed(1)}%, ${colourOf(from)})`;
}

// A dot of its colour for each goal; of many for the lowest and the highest, between which the colour goes by the value.
function goalLegend() {
  if (goals.length <= COLOURS) return goals.map((goal, index) => ['circle', colourOf(index), goal]);
  return [false, true].flatMap((targets) => {
    const rows = goalRows.filter((row) => hasTarget(row) === targets);
    const [first, last] = [rows[0], rows[rows.length - 1]];
    if (!rows.length) return [];
    if (goalOf(first) === goalOf(last)) return [['circle', goalColour(first), goalOf(first)]];
    return [[first, 'lowest'], [last, 'highest']].map(
      ([row, end]) => ['circle', goalColour(row), `${goalOf(row)} (${end})`]);
  });
}

const others = report.baselines.filter((entry) => !entry.own);
const methods = [...new Set(others.map((entry) => entry.method))];
const METHOD_SHAPES = ['diamond', 'triangle', 'plus'];

// Shape and colour of a method: colours that no goal has come first, and a shape has each colour once.
function methodLook(method) {
  const index = methods.indexOf(method);
  const taken = goals.length < COLOURS ? goals.length : 0;
  return [METHOD_SHAPES[Math.floor(index / COLOURS) % METHOD_SHAPES.length], colourOf(taken + index)];
}
