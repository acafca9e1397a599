"use strict";
(() => {
  const root = document.documentElement;
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const announce = (text) => { document.querySelector(".announcer").textContent = text; };

  // Light and dark: what the reader chose, else what the system says. A file may not remember.
  const remembered = () => { try { return localStorage.getItem("indexlab-theme"); } catch { return null; } };
  const remember = (theme) => { try { localStorage.setItem("indexlab-theme", theme); } catch { /* not permitted */ } };
  const wanted = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (wanted.matches ? "dark" : "light")) === "dark";
  if (["light", "dark"].includes(remembered())) root.dataset.theme = remembered();

  const themeSwitch = () => {
    const button = make("button", { type: "button", className: "theme" });
    button.setAttribute("aria-label", "Dark colours");
    const show = () => {
      button.textContent = isDark() ? "☾ dark" : "☀ light";
      button.setAttribute("aria-pressed", String(isDark()));
    };
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      remember(root.dataset.theme);
      show();
    });
    wanted.addEventListener("change", show);
    show();
    document.querySelector(".tools").append(button);
  };

  // The number that a cell says, in the words of the kit; undefined where it says none.
  const UNITS = {
    us: 1e-6, ms: 1e-3, s: 1, min: 60, h: 3600,
    B: 1, kB: 1024, MB: 1024 ** 2, GB: 1024 ** 3, TB: 1024 ** 4, "%": 0.01,
  };
  const numberOf = (text) => {
    const words = text.trim().replace(/^(>=|~|about)\s*/, "").replace(/,(?=\d{3})/g, "");
    if (words === "unchanged") return 1;
    const factor = /^(\d[\d.]*)x (faster|slower|cheaper|dearer)/.exec(words);
    if (factor) return /faster|cheaper/.test(factor[2]) ? 1 / factor[1] : Number(factor[1]);
    const first = /^(-?)(\d[\d.]*(?:e[+-]?\d+)?)(?:\s*(us|ms|s|min|h|B|kB|MB|GB|TB|%)(?![\w]))?/.exec(words);
    if (!first) return undefined;
    let value = Number(first[2]) * (UNITS[first[3]] ?? 1);
    const rest = /^ (\d+) (s|min)\b/.exec(words.slice(first[0].length));
    if (rest && ["min", "h"].includes(first[3])) value += rest[1] * UNITS[rest[2]];
    return first[1] ? -value : value;
  };

  const sortable = (table) => {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const heads = all("thead th", table);
    // A table with a heading of no words lists properties, whose order is its own.
    if (rows.length < 2 || !heads.every((head) => head.textContent.trim())) return;
    heads.forEach((head, column) => {
      const button = make("button", { type: "button", className: "sort" }, ...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const keyed = rows.map((row, place) => {
          const text = row.cells[column].textContent.trim();
          return { row, place, text, number: numberOf(text) };
        });
        const inNumbers = keyed.every((one) => one.number !== undefined || one.text === "");
        const order = (a, b) => {
          if (!a.text !== !b.text) return a.text ? -1 : 1; // what is empty stays at the end
          const found = inNumbers ? a.number - b.number
            : a.text.localeCompare(b.text, "en", { numeric: true });
          return (up ? found : -found) || a.place - b.place;
        };
        body.append(...keyed.sort(order).map((one) => one.row));
        announce(`sorted by ${button.textContent.trim()}, ${up ? "ascending" : "descending"}`);
      });
    });
  };

  const FILTERED_FROM = 6;
  const filterable = (table) => {
    const rows = [...table.tBodies[0].rows];
    if (rows.length < FILTERED_FROM || "filtered" in table.dataset) return; // or it has its own
    const about = table.caption ? table.caption.textContent : "the table";
    const input = make("input", { type: "search", placeholder: "Filter rows", autocomplete: "off" });
    input.setAttribute("aria-label", `Filter rows: ${about}`);
    const count = make("span", { className: "count" });
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += row.hidden ? 0 : 1;
      }
      count.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
      announce(count.textContent);
    });
    const place = table.closest(".wide") ?? table;
    const first = place.querySelector(":scope > .il-table") === table;
    (first ? place : table).before(make("div", { className: "filter" }, input, count));
  };

  const copied = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch { // without permission, or an older browser
      const field = make("textarea", { value: text, className: "aside" });
      document.body.append(field);
      field.select();
      const done = document.execCommand("copy");
      field.remove();
      return done;
    }
  };
  const copyable = (pre) => {
    const button = make("button", { type: "button", className: "copy" }, "Copy");
    const code = pre.querySelector("code") ?? pre;
    button.addEventListener("click", async () => {
      button.textContent = (await copied(code.textContent)) ? "Copied" : "Not permitted";
      announce(button.textContent);
      button.addEventListener("blur", () => { button.textContent = "Copy"; }, { once: true });
    });
    const holder = make("div", { className: "copyable" });
    pre.replaceWith(holder);
    holder.append(pre, button);
  };

  const foldable = (plan) => {
    const steps = all("details", plan);
    if (steps.length < 2) return;
    const button = make("button", { type: "button", className: "fold" }, "Fold all");
    button.addEventListener("click", () => {
      const open = !steps.some((step) => step.open);
      steps.forEach((step) => { step.open = open; });
      button.textContent = open ? "Fold all" : "Unfold all";
    });
    plan.prepend(button);
  };

  // What scrolls must be reachable by keyboard.
  const reachable = () => all(".wide, pre").forEach((box) => {
    const scrolls = box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1;
    if (scrolls) {
      box.tabIndex = 0;
      if (box.matches(".wide")) {
        box.setAttribute("role", "group");
        box.setAttribute("aria-label", "scrolls");
      }
    } else if (box.hasAttribute("tabindex")) {
      for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
    }
  });

  const revealed = () => {
    const place = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let box = place; box; box = box.parentElement) if (box.tagName === "DETAILS") box.open = true;
    if (place) place.scrollIntoView();
  };

  const following = () => {
    const links = new Map(all(".contents a").map((link) => [link.hash.slice(1), link]));
    const heads = [...links.keys()].map((id) => document.getElementById(id)).filter(Boolean);
    const mark = () => {
      const passed = heads.filter((head) => head.getBoundingClientRect().top < innerHeight / 3);
      const now = passed.at(-1);
      for (const [id, link] of links) {
        if (now && id === now.id) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
    };
    let due = false;
    addEventListener("scroll", () => {
      if (due) return;
      due = true;
      requestAnimationFrame(() => { due = false; mark(); });
    }, { passive: true });
    mark();
  };

  // On paper everything but code is unfolded.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details:not([open]):not(.code)");
    folded.forEach((box) => { box.open = true; });
  });
  addEventListener("afterprint", () => { folded.forEach((box) => { box.open = false; }); });

  addEventListener("DOMContentLoaded", () => {
    themeSwitch();
    all("table.il-table").forEach((table) => {
      if (!table.tBodies.length || !table.tHead) return;
      sortable(table);
      filterable(table);
    });
    all("pre.il-code, pre.command").forEach(copyable);
    all(".il-plan").forEach(foldable);
    reachable();
    addEventListener("resize", reachable);
    document.addEventListener("toggle", reachable, true);
    following();
    revealed();
    addEventListener("hashchange", revealed);
    root.dataset.ready = "true";
  });
})();
