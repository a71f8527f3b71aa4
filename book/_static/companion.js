// A handful of additions to the theme. Without JavaScript nothing is missing.

// What a control is called begins with what it shows: the theme's labels say something else to a screen reader.
document.addEventListener("DOMContentLoaded", () => {
  for (const control of document.querySelectorAll("summary[aria-label], .search-button-field")) {
    control.removeAttribute("aria-label");
  }
  for (const control of document.querySelectorAll(".has-children > details > summary")) {
    control.setAttribute("aria-label", `Pages of ${control.closest("li").querySelector("a").textContent.trim()}`);
  }
  for (const control of document.querySelectorAll(".theme-switch-button")) {
    const modes = [...control.querySelectorAll("[title]")].map((icon) => icon.title);
    control.setAttribute("aria-label", `${modes.join(" ")}: ${control.getAttribute("aria-label")}`);
  }
});

// A list has items, and what scrolls can be reached by keyboard; the theme sees to neither everywhere.
document.addEventListener("DOMContentLoaded", () => {
  for (const item of document.querySelectorAll('.citation-list[role="list"] > *')) item.setAttribute("role", "listitem");
  for (const code of document.querySelectorAll("pre")) {
    if (code.scrollWidth > code.clientWidth) code.tabIndex = 0;
  }
});

// A table that is wider than the page fades out on the side where there is more of it.
addEventListener("load", () => {
  for (const frame of document.querySelectorAll(".pst-scrollable-table-container")) {
    const look = () => {
      frame.classList.toggle("more-left", frame.scrollLeft > 1);
      frame.classList.toggle("more-right", frame.scrollLeft + frame.clientWidth < frame.scrollWidth - 1);
    };
    frame.addEventListener("scroll", look, { passive: true });
    new ResizeObserver(look).observe(frame);
  }
});

// On paper, where each number comes from is not folded away.
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details.sd-dropdown")) fold.open = true;
});

// The scoreboard can be filtered by section and verdict.
document.addEventListener("DOMContentLoaded", () => {
  const tables = [...document.querySelectorAll("article table")]
    .map((table) => {
      const column = [...table.querySelectorAll("thead th")].findIndex((cell) => cell.textContent.trim() === "Verdict");
      const [section, what] = (table.caption?.querySelector(".caption-text")?.textContent ?? "").split(": ");
      return { whole: table.closest(".pst-scrollable-table-container") ?? table, column, section, what,
               rows: [...table.querySelectorAll("tbody tr")] };
    })
    .filter((table) => table.column >= 0 && /^the claims/.test(table.what ?? ""));
  if (tables.length < 2) return;

  const verdict = (table, row) => row.cells[table.column].textContent.trim();
  const bar = document.createElement("form");
  bar.className = "claims-filter";
  bar.setAttribute("role", "search");
  bar.setAttribute("aria-label", "Filter the claims");
  const choice = (name, values) => {
    const label = document.createElement("label");
    const select = document.createElement("select");
    select.className = "form-select form-select-sm";
    for (const value of ["all", ...values]) select.add(new Option(value, value));
    label.append(`${name} `, select);
    bar.append(label);
    select.addEventListener("change", show);
    return select;
  };
  const section = choice("Section", tables.map((table) => table.section));
  const verdicts = new Set(tables.flatMap((table) => table.rows.map((row) => verdict(table, row))));
  const word = choice("Verdict", [...verdicts].sort());
  const count = document.createElement("output");
  count.setAttribute("aria-live", "polite");
  bar.append(count);

  function show() {
    let shown = 0;
    for (const table of tables) {
      let here = 0;
      for (const row of table.rows) {
        row.hidden = !((section.value === "all" || section.value === table.section) &&
                       (word.value === "all" || word.value === verdict(table, row)));
        here += !row.hidden;
      }
      table.whole.hidden = here === 0;
      shown += here;
    }
    const all = tables.reduce((sum, table) => sum + table.rows.length, 0);
    count.textContent = shown === all ? `${all} claims` : `${shown} of ${all} claims`;
  }

  tables[0].whole.before(bar);
  show();
});
