// Filters of the matrix. A filtered view has an address of its own: #tag=eu&verdict=failed.
addEventListener("DOMContentLoaded", () => {
  const form = document.getElementById("filters");
  const table = document.getElementById("targets");
  const listed = table.classList.contains("listed");
  const fixed = Number(table.dataset.fixed); // columns before the statements
  const names = [...table.tHead.rows[0].cells].slice(fixed).map((cell) => cell.title);
  const word = (text) => text.slice(text.indexOf(" ") + 1);
  const rows = [...table.tBodies[0].rows].map((row) => ({
    row,
    text: [row.cells[0], row.querySelector(".told")].map((cell) => cell.textContent).join(" ").toLowerCase(),
    status: row.dataset.s,
    tags: JSON.parse(row.dataset.t),
    states: listed
      ? new Map([...row.querySelectorAll(".chip")].map((chip) => [
        chip.dataset.n, word(chip.lastElementChild.textContent)]))
      : new Map(names.map((name, place) => [name, row.cells[fixed + place].textContent])
        .filter(([, text]) => text).map(([name, text]) => [name, word(text)])),
  }));
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];

  const chosen = () => Object.fromEntries(
    [...new FormData(form)].map(([name, value]) => [name, value.trim()]).filter(([, v]) => v));

  function fits(one, want) {
    if (want.find && !one.text.includes(want.find.toLowerCase())) return false;
    if (want.status && one.status !== want.status) return false;
    if (want.tag && !one.tags.includes(want.tag)) return false;
    if (!want.verdict && !want.statement) return true;
    const states = want.statement ? [one.states.get(want.statement)] : [...one.states.values()];
    return want.verdict ? states.includes(want.verdict) : states[0] !== undefined;
  }

  function show() {
    const want = chosen();
    const used = new Set();
    let number = 0;
    for (const one of rows) {
      one.row.hidden = !fits(one, want);
      if (one.row.hidden) continue;
      number += 1;
      if (!listed) for (const name of one.states.keys()) used.add(name);
    }
    // Plans differ between targets: a column without a word among these rows is left out.
    sheet.replaceSync(listed || !number ? "" : names.map((name, place) => used.has(name) ? ""
      : `#targets tr > :nth-child(${fixed + place + 1}) { display: none; }`).join(""));
    document.getElementById("shown").textContent =
      `${number.toLocaleString("en")} of ${rows.length.toLocaleString("en")} targets`;
    return want;
  }

  function restore() {
    const asked = new URLSearchParams(location.hash.slice(1));
    form.reset();
    for (const [name, value] of asked) if (form.elements[name]) form.elements[name].value = value;
    show();
  }

  function remember() {
    const hash = new URLSearchParams(show()).toString();
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  }

  form.hidden = false;
  form.addEventListener("input", remember);
  form.addEventListener("reset", () => setTimeout(remember));
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", restore);
  addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      form.elements.find.focus();
    }
  });
  restore();
});
