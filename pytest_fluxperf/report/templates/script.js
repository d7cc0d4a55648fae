"use strict";
(() => {
  const root = document.documentElement;
  const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];

  // theme: the system's, until the reader chooses
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  // sorting: a click on a heading; a second one turns it round
  const table = document.getElementById("tests");
  const body = table?.tBodies[0];
  const value = (row, column) => {
    const text = row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
    const number = Number.parseFloat(text);
    return text !== "" && Number.isFinite(number) ? number : text;
  };
  $$("th button", table ?? document.createElement("i")).forEach((button) => {
    const heading = button.parentElement;
    button.addEventListener("click", () => {
      const up = heading.getAttribute("aria-sort") !== "ascending";
      $$("th", table).forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const column = heading.cellIndex;
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        if (x === "–" || y === "–") return (x === "–") - (y === "–");
        const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
        return up ? order : -order;
      });
      body.append(...rows);
    });
  });

  // filters: verdict, family, text
  const filters = ["verdict", "family", "search"].map((id) => document.getElementById(id));
  const apply = () => {
    const [verdict, family, words] = filters.map((filter) => filter.value.trim().toLowerCase());
    let shown = 0;
    $$("[data-test]").forEach((element) => {
      const fits = (!verdict || element.dataset.verdict === verdict)
        && (!family || element.dataset.families.split(" ").includes(family))
        && (!words || words.split(/\s+/).every((word) => element.dataset.test.includes(word)));
      element.hidden = !fits;
      if (fits && element.tagName === "TR") shown += 1;
    });
    document.getElementById("shown").textContent = `${shown} of ${body.rows.length} shown`;
  };
  if (body) {
    filters.forEach((filter) => filter.addEventListener("input", apply));
    apply();
  }

  // deep links open their test
  const open = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target?.matches("details")) {
      target.hidden = false;
      target.open = true;
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", open);
  open();
  addEventListener("beforeprint", () => $$("details.test").forEach((test) => { test.open = true; }));

  // slider between the reference and now
  document.addEventListener("input", (event) => {
    if (event.target.matches(".compare")) {
      event.target.previousElementSibling.style.setProperty("--cut", `${event.target.value}%`);
    }
  });

  // copy raw values
  document.addEventListener("click", (event) => {
    if (event.target.matches("button.copy")) {
      const text = event.target.nextElementSibling.textContent;
      navigator.clipboard?.writeText(text).then(() => { event.target.textContent = "Copied"; });
    }
  });
})();
