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

// All of the page is in a landmark, the book's title in the sidebar too.
document.addEventListener("DOMContentLoaded", () => {
  const start = document.querySelector("#pst-primary-sidebar .sidebar-primary-items__start");
  start?.setAttribute("role", "navigation");
  start?.setAttribute("aria-label", "Title, search and pages");
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

// Tables of claims can be sorted by each column and filtered by what their columns say.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("article table.claims")) {
    const rows = [...table.querySelectorAll("tbody tr")];
    const titles = [...table.querySelectorAll("thead th")];
    const text = (row, column) => row.cells[column].textContent.trim();
    const kind = (row, column) => text(row, column).split(",")[0]; // without the size, or the number of seeds

    titles.forEach((title, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...title.childNodes);
      title.append(button);
      button.addEventListener("click", () => {
        const falling = title.getAttribute("aria-sort") === "ascending";
        titles.forEach((other) => other.removeAttribute("aria-sort"));
        title.setAttribute("aria-sort", falling ? "descending" : "ascending");
        const sorted = [...rows].sort((a, b) => text(a, column).localeCompare(text(b, column), "en", { numeric: true }));
        table.tBodies[0].append(...(falling ? sorted.reverse() : sorted));
      });
    });

    const bar = document.createElement("form");
    bar.className = "claims-filter";
    bar.setAttribute("role", "search");
    bar.setAttribute("aria-label", "Filter the claims");
    const choices = [];
    titles.forEach((title, column) => {
      const name = title.textContent.trim();
      const values = [...new Set(rows.map((row) => kind(row, column)))].sort();
      if (!["Verdict", "Scale", "Page"].includes(name) || values.length < 2) return;
      const label = document.createElement("label");
      const select = document.createElement("select");
      select.className = "form-select form-select-sm";
      for (const value of ["all", ...values]) select.add(new Option(value, value));
      label.append(`${name} `, select);
      bar.append(label);
      select.addEventListener("change", show);
      choices.push({ select, column });
    });
    const count = document.createElement("output");
    count.setAttribute("aria-live", "polite");
    bar.append(count);

    function show() {
      for (const row of rows) {
        row.hidden = !choices.every(({ select, column }) => select.value === "all" || select.value === kind(row, column));
      }
      const shown = rows.filter((row) => !row.hidden).length;
      count.textContent = shown === rows.length ? `${shown} claims` : `${shown} of ${rows.length} claims`;
    }

    (table.closest(".pst-scrollable-table-container") ?? table).before(bar);
    show();
  }
});
