// Formulas: numbers, "text", cells, ranges, + - * / ^ and &, comparisons, and the functions below.
//
//   comparison  := joined (("=" | "<>" | "<=" | ">=" | "<" | ">") joined)?
//   joined      := sum ("&" sum)*
//   sum         := product (("+" | "-") product)*
//   product     := power (("*" | "/") power)*
//   power       := unary ("^" power)?
//   unary       := ("+" | "-") unary | atom "%"?
//   atom        := number | text | cell | function "(" arguments ")" | "(" comparison ")"

const TOKEN = /\s*(?:(\d+(?:\.\d*)?|\.\d+)|"([^"]*)"|([A-Za-z]+\d+)(?::([A-Za-z]+\d+))?|([A-Za-z]+)\s*(?=\()|(<>|<=|>=|[-+*\/^&=<>(),%]))/y;
const NUMBER = /^[-+]?(\d+(\.\d*)?|\.\d+)(e[-+]?\d+)?$/i;
const HEADING = /^#{1,2}(?: |$)/;

export class FormulaError extends Error {}

const FUNCTIONS = {
  SUM: (values) => numbers(values).reduce((sum, value) => sum + value, 0),
  AVERAGE: (values) => {
    const found = numbers(values);
    return divide(FUNCTIONS.SUM(found), found.length);
  },
  MIN: (values) => (numbers(values).length ? Math.min(...numbers(values)) : 0),
  MAX: (values) => (numbers(values).length ? Math.max(...numbers(values)) : 0),
  COUNT: (values) => numbers(values).length,
  ROUND: ([value, digits = 0]) => {
    const scale = 10 ** Math.trunc(number(digits));
    return Math.round((number(value) + Number.EPSILON) * scale) / scale;
  },
  IF: ([condition, then, otherwise = ""]) => (condition ? then : otherwise),
};

// Each cell's value, and how it is shown. `cells` is a Map of texts by name; the result has the same names.
//
// A number that was typed is shown as it was typed, and a result with the decimal places of the cells it was made from:
// where prices are 3.20 and 2.80, their sum is 6.00.
export function evaluate(cells, { columns, rows }) {
  const results = new Map();
  const open = new Set();

  function resultOf(name) {
    if (results.has(name)) return results.get(name);
    if (open.has(name)) return { value: new FormulaError("#CYCLE!"), places: 0 };
    open.add(name);
    const text = (cells.get(name) ?? "").replace(HEADING, "");
    let result;
    try {
      result = text.startsWith("=") ? computed(text.slice(1)) : literal(text);
    } catch (error) {
      if (!(error instanceof FormulaError)) throw error;
      result = { value: error, places: 0, shown: error.message };
    }
    open.delete(name);
    results.set(name, result);
    return result;
  }

  function computed(text) {
    const used = { places: 0 };
    const value = calculate(text, used, (name) => {
      const [, column, row] = /^([A-Z]+)(\d+)$/.exec(name);
      if (column.length !== 1 || !columns.includes(column) || row < 1 || row > rows) throw new FormulaError("#REF!");
      const result = resultOf(`${column}${Number(row)}`);
      if (result.value instanceof FormulaError) throw result.value;
      used.places = Math.max(used.places, result.places);
      return result.value;
    });
    return { value, places: used.places, shown: format(value, used.places) };
  }

  for (const name of cells.keys()) resultOf(name);
  return results;
}

// Up to ten digits, so that 0.1 + 0.2 is 0.3, and at least so many decimal places.
function format(value, places = 0) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return value;
  const shown = String(Number(value.toPrecision(10)));
  const has = /^-?\d+(?:\.(\d+))?$/.exec(shown);
  return has && (has[1] ?? "").length < places ? value.toFixed(places) : shown;
}

function literal(text) {
  if (!NUMBER.test(text.trim())) return { value: text, places: 0, shown: text };
  const places = /^[^.e]*(?:\.(\d*))?$/i.exec(text.trim())?.[1]?.length ?? 0;
  return { value: Number(text), places, shown: text };
}

function calculate(text, used, cell) {
  const tokens = tokenize(text);
  let position = 0;
  const peek = () => tokens[position];
  const take = (...symbols) => {
    const token = tokens[position];
    if (token?.symbol === undefined || !symbols.includes(token.symbol)) return null;
    position += 1;
    return token.symbol;
  };
  const need = (symbol) => {
    if (!take(symbol)) throw new FormulaError("#ERROR!");
  };

  function comparison() {
    const left = joined();
    const how = take("=", "<>", "<=", ">=", "<", ">");
    if (!how) return left;
    const right = joined();
    switch (how) {
      case "=": return left === right;
      case "<>": return left !== right;
      case "<=": return left <= right;
      case ">=": return left >= right;
      case "<": return left < right;
      default: return left > right;
    }
  }
  function joined() {
    let left = sum();
    while (take("&")) left = format(left) + format(sum());
    return left;
  }
  function sum() {
    let left = product();
    for (let how; (how = take("+", "-")); ) {
      const right = product();
      left = how === "+" ? number(left) + number(right) : number(left) - number(right);
    }
    return left;
  }
  function product() {
    let left = power();
    for (let how; (how = take("*", "/")); ) {
      const right = power();
      left = how === "*" ? number(left) * number(right) : divide(left, right);
    }
    return left;
  }
  function power() {
    const base = unary();
    return take("^") ? number(base) ** number(power()) : base;
  }
  function unary() {
    const sign = take("+", "-");
    if (sign) return sign === "-" ? -number(unary()) : number(unary());
    const value = atom();
    return take("%") ? number(value) / 100 : value;
  }
  function atom() {
    const token = peek();
    if (token === undefined) throw new FormulaError("#ERROR!");
    if (take("(")) {
      const value = comparison();
      need(")");
      return value;
    }
    position += 1;
    if ("value" in token) return token.value;
    if (token.from && !token.to) return cell(token.from);
    if (token.name) return call(token.name);
    throw new FormulaError("#ERROR!"); // a range stands in the arguments of a function only
  }
  function call(name) {
    if (!Object.hasOwn(FUNCTIONS, name)) throw new FormulaError("#NAME?");
    const values = [];
    const { places } = used;
    need("(");
    if (!take(")")) {
      do {
        if (peek()?.to) {
          values.push(...range(peek().from, peek().to).map(cell));
          position += 1;
        } else {
          values.push(comparison());
        }
      } while (take(","));
      need(")");
    }
    if (name === "COUNT") used.places = places;
    if (name === "ROUND") used.places = Math.max(places, Math.min(10, Math.trunc(number(values[1] ?? 0))));
    return FUNCTIONS[name](values);
  }

  const value = comparison();
  if (position < tokens.length) throw new FormulaError("#ERROR!");
  if (typeof value === "number" && !Number.isFinite(value)) throw new FormulaError("#NUM!");
  return value;
}

function tokenize(text) {
  const tokens = [];
  const end = text.trimEnd().length;
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < end) {
    const match = TOKEN.exec(text);
    if (!match) throw new FormulaError("#ERROR!");
    const [, digits, quoted, from, to, name, symbol] = match;
    if (digits !== undefined) tokens.push({ value: Number(digits) });
    else if (quoted !== undefined) tokens.push({ value: quoted });
    else if (from) tokens.push({ from: from.toUpperCase(), to: to?.toUpperCase() });
    else if (name) tokens.push({ name: name.toUpperCase() });
    else tokens.push({ symbol });
  }
  return tokens;
}

function range(from, to) {
  const [a, b] = [from, to].map((name) => /^([A-Z]+)(\d+)$/.exec(name));
  if (a[1].length > 1 || b[1].length > 1 || a[2].length > 3 || b[2].length > 3) throw new FormulaError("#REF!");
  const [left, right] = [a[1].charCodeAt(0), b[1].charCodeAt(0)].sort((one, two) => one - two);
  const [top, bottom] = [Number(a[2]), Number(b[2])].sort((one, two) => one - two);
  const names = [];
  for (let row = top; row <= bottom; row++) {
    for (let column = left; column <= right; column++) names.push(`${String.fromCharCode(column)}${row}`);
  }
  return names;
}

function number(value) {
  if (typeof value === "number") return value;
  if (value === "") return 0; // an empty cell
  throw new FormulaError("#VALUE!");
}

function numbers(values) {
  return values.filter((value) => typeof value === "number");
}

function divide(left, right) {
  if (number(right) === 0) throw new FormulaError("#DIV/0!");
  return number(left) / number(right);
}
