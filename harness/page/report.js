"use strict";
// Texts from data enter the page by textContent and setAttribute only, so that none of them is ever read as HTML.
(() => {
  const find = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const data = JSON.parse(find("#data").textContent);

  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined) node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  };
  const options = (select, values) => values.forEach((value) => select.append(make("option", { value }, value)));
  const distinct = (values) => [...new Set(values)].sort();

  // ---- theme and sections
  const themes = ["auto", "light", "dark"];
  find("#theme").addEventListener("click", (event) => {
    const now = document.documentElement.dataset.theme || "auto";
    const next = themes[(themes.indexOf(now) + 1) % themes.length];
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    event.target.textContent = `Theme: ${next}`;
  });

  const links = new Map(all(".top nav a").map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      links.forEach((link) => link.removeAttribute("aria-current"));
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -75% 0px" });
  all("main > section").forEach((section) => seen.observe(section));

  // ---- sorting: the rows of each body among themselves, rows without a value last
  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
  };
  const sort = (table, column, direction) => {
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
      const key = (row) => row.cells[column].dataset.sort;
      const known = rows.filter((row) => key(row) !== undefined);
      known.sort((a, b) => direction * compare(key(a), key(b)));
      body.append(...known, ...rows.filter((row) => key(row) === undefined));
    }
  };
  for (const table of all("table.sortable")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => find("button", head).addEventListener("click", () => {
      const other = { ascending: "descending", descending: "ascending" };
      const next = other[head.getAttribute("aria-sort")] || head.dataset.first;
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", next);
      sort(table, column, next === "ascending" ? 1 : -1);
    }));
  }

  // ---- filters of the leaderboard
  const board = find("#leaderboard");
  const boardRows = all("tbody tr:not(.group)", board);
  const filter = () => {
    const wanted = all("#board-filters select").filter((select) => select.value);
    const words = find("#board-search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const bestOnly = find("#board-best")?.checked;
    const met = new Set();
    let count = 0;
    for (const row of boardRows) {
      const text = Object.values(row.dataset).join(" ").toLowerCase();
      let shown = wanted.every((select) => row.dataset[select.dataset.filter] === select.value);
      shown = shown && words.every((word) => text.includes(word));
      if (shown && bestOnly) {
        shown = !met.has(row.dataset.model);
        met.add(row.dataset.model);
      }
      row.hidden = !shown;
      count += shown;
    }
    for (const group of all(".group", board)) {
      group.hidden = [...group.parentElement.rows].every((row) => row === group || row.hidden);
    }
    find("#board-count").textContent = `${count} of ${boardRows.length} rows`;
  };
  find("#board-filters").addEventListener("input", filter);
  filter();
  for (const form of all("form")) form.addEventListener("submit", (event) => event.preventDefault());

  // ---- which rows differ
  const pairs = data.significance;
  const signed = (value, digits = 3) => {
    const size = Math.abs(value).toFixed(digits).replace(/^0/, "");
    return (Number(size) === 0 ? "" : value > 0 ? "+" : "−") + size;
  };
  const pairCell = (metric, one, other, found) => {
    if (!found) return make("td", {}, "");
    const [value, low, high, p] = found;
    const differs = p < pairs.level;
    const better = value * (pairs.lower.includes(metric) ? -1 : 1) > 0;
    const chance = p < 0.001 ? "p < 0.001" : `p = ${p.toFixed(3)}`;
    const words = `${one} − ${other}: ${signed(value)} [${signed(low)}, ${signed(high)}], ${chance}`;
    const sign = differs ? (better ? "▲" : "▼") : "≈";
    return make("td", { class: differs ? (better ? "better" : "worse") : "same", title: words }, `${sign} ${signed(value, 2)}`);
  };
  const drawPairs = () => {
    const metric = find("#pairs-metric").value;
    const found = new Map();
    for (const [a, b, value, low, high, p] of pairs.pairs[metric]) {
      found.set(`${a} ${b}`, [value, low, high, p]);
      found.set(`${b} ${a}`, [-value, -high, -low, p]);
    }
    const names = pairs.rows.map((row) => `${row.rank}. ${row.label}`);
    const down = names.map((_, place) => place)
      .filter((a) => names.filter((_, b) => found.has(`${a} ${b}`)).length > 1 || names.length === 2);
    const head = make("tr", {}, make("th", { scope: "col" }, `difference of ${metric}`),
      ...pairs.rows.map((row) => make("th", { scope: "col", title: row.label }, String(row.rank))));
    const body = down.map((a) => make("tr", {}, make("th", { scope: "row" }, names[a]),
      ...names.map((_, b) => (a === b ? make("td", {}, "·") : pairCell(metric, names[a], names[b], found.get(`${a} ${b}`))))));
    find("#pairs-table").replaceChildren(make("thead", {}, head), make("tbody", {}, ...body));
  };
  if (pairs && find("#pairs-metric")) {
    options(find("#pairs-metric"), Object.keys(pairs.pairs));
    find("#pairs-metric").addEventListener("input", drawPairs);
    drawPairs();
  }

  // ---- samples side by side
  const gallery = data.gallery;
  if (!gallery) return;
  const atOnce = 8; // cards drawn at a time, so that the page opens at once
  const reasons = { best: "among the best", worst: "among the worst", disagreed: "rows disagree", spread: "from all over" };
  const firstOfModel = new Set();
  gallery.rows.forEach((row, place) => {
    if (!gallery.rows.slice(0, place).some((before) => before.model === row.model)) firstOfModel.add(place);
  });
  gallery.samples.forEach((sample, place) => {
    sample.place = place;
    sample.text = [sample.id, sample.modality, sample.reference, ...sample.concepts, ...sample.captions]
      .join("\n").toLowerCase();
  });
  options(find("#gallery-modality"), distinct(gallery.samples.map((sample) => sample.modality)));
  const each = find("#gallery-each");
  each.checked = firstOfModel.size < gallery.rows.length;
  find("#gallery-each-label").hidden = firstOfModel.size === gallery.rows.length;

  const number = (value) => (value === null ? "" : value.toFixed(3));
  const tops = (sample, rows) => gallery.columns.map((name, column) => {
    const values = rows.map((row) => sample.scores[row][column]).filter((value) => value !== null);
    return gallery.lower.includes(name) ? Math.min(...values) : Math.max(...values);
  });
  const scoresTable = (sample) => {
    const rows = gallery.rows.map((_, place) => place).filter((place) => !each.checked || firstOfModel.has(place));
    const best = tops(sample, rows);
    const heads = ["row", "caption", ...gallery.columns.map((name) => name.replaceAll("_", " "))];
    const line = (row) => {
      const caption = sample.captions[row];
      const words = caption ? [{ class: "caption" }, caption] : [{ class: "caption missing" }, caption === "" ? "empty" : "no caption"];
      const scores = sample.scores[row].map((value, column) =>
        make("td", { class: value !== null && value === best[column] ? "number top-score" : "number" }, number(value)));
      return make("tr", {}, make("th", { scope: "row" }, gallery.rows[row].label), make("td", ...words), ...scores);
    };
    return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Captions of ${sample.id}` },
      make("table", {},
        make("thead", {}, make("tr", {}, ...heads.map((head, place) => make("th", { scope: "col", class: place > 1 ? "number" : null }, head)))),
        make("tbody", {}, ...rows.map(line))));
  };
  const card = (sample) => {
    const picture = sample.picture
      ? make("img", { src: sample.picture, alt: `${sample.modality} picture of sample ${sample.id}`, loading: "lazy" })
      : make("div", { class: "empty" }, "no picture here");
    const facts = [sample.modality, ...sample.why.map((kind) => reasons[kind])];
    if (sample.mean !== null) facts.push(`mean ${gallery.by} ${number(sample.mean)}`);
    const tags = make("ul", { class: "tags" }, ...facts.map((fact) => make("li", {}, fact)));
    return make("article", { class: "card" }, make("div", {}, picture, tags),
      make("div", {}, make("h3", {}, sample.id), make("p", {}, make("strong", {}, "Reference: "), sample.reference), scoresTable(sample)));
  };

  let shown = atOnce;
  const sign = gallery.lower.includes(gallery.by) ? -1 : 1;
  const good = (sample) => (sample.mean === null ? null : sign * sample.mean);
  const orders = {
    split: (a, b) => a.place - b.place,
    best: (a, b) => (good(b) ?? -Infinity) - (good(a) ?? -Infinity),
    worst: (a, b) => (good(a) ?? Infinity) - (good(b) ?? Infinity),
    disagreed: (a, b) => (b.spread ?? -1) - (a.spread ?? -1),
  };
  const draw = () => {
    const [kind, modality] = [find("#gallery-kind").value, find("#gallery-modality").value];
    const words = find("#gallery-search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = gallery.samples
      .filter((sample) => !kind || sample.why.includes(kind))
      .filter((sample) => !modality || sample.modality === modality)
      .filter((sample) => words.every((word) => sample.text.includes(word)))
      .sort(orders[find("#gallery-order").value]);
    find("#cards").replaceChildren(...found.slice(0, shown).map(card));
    find("#gallery-more").hidden = found.length <= shown;
    find("#gallery-count").textContent = `${found.length} of ${gallery.samples.length} samples`;
  };
  find("#gallery-filters").addEventListener("input", () => { shown = atOnce; draw(); });
  find("#gallery-more").addEventListener("click", () => { shown += atOnce; draw(); });
  draw();
})();
