"use strict";
(() => {
  const root = document.documentElement;
  const $ = (selector, from = document) => from.querySelector(selector);
  const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];
  root.classList.add("scripted");

  // theme: the system's, until the reader chooses
  $("#theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  const table = $("#tests");
  if (!table) return;
  const body = table.tBodies[0];
  const tests = $$("details.test");

  // sorting: a click on a heading; a second one turns it round; what is unknown stays last
  const value = (row, column) => {
    const text = row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
    const number = Number.parseFloat(text);
    return text !== "" && Number.isFinite(number) ? number : text;
  };
  $$("th button", table).forEach((button) => {
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

  // filters: verdict, family, machine, text
  const filters = ["verdict", "family", "machine", "search"].map((id) => document.getElementById(id));
  const filtered = [...body.rows, ...tests];
  const apply = () => {
    const [verdict, family, machine, words] = filters.map((filter) => filter?.value.trim().toLowerCase());
    let shown = 0;
    filtered.forEach((element) => {
      const { verdict: its, families, machine: where, test } = element.dataset;
      const fits = (!verdict || its === verdict)
        && (!family || families.split(" ").includes(family))
        && (!machine || where === machine)
        && (!words || words.split(/\s+/).every((word) => test.includes(word)));
      element.hidden = !fits;
      if (fits && element.tagName === "TR") shown += 1;
    });
    $("#shown").textContent = `${shown} of ${body.rows.length} shown`;
  };
  filters.forEach((filter) => filter?.addEventListener("input", apply));
  apply();

  // deep links open their test; an open test puts its link into the address
  const visit = (id) => {
    const test = document.getElementById(id);
    if (!test?.matches("details.test")) return;
    test.hidden = false;
    test.open = true;
    test.scrollIntoView();
    $("summary", test).focus({ preventScroll: true });
  };
  const follow = () => visit(decodeURIComponent(location.hash.slice(1)));
  addEventListener("hashchange", follow);
  follow();
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="#"]');
    const target = event.target.closest?.("[data-open]")?.dataset.open ?? link?.getAttribute("href").slice(1);
    if (target) visit(target);  // also where the address has it already
    const summary = event.target.closest?.("details.test > summary");
    if (summary && !summary.parentElement.open) history.replaceState(null, "", `#${summary.parentElement.id}`);
  });

  // printing shows every test, dark on light, and leaves the page as it was
  let closed = [];
  let theme;
  addEventListener("beforeprint", () => {
    theme = root.dataset.theme;
    root.dataset.theme = "light";
    closed = tests.filter((test) => !test.open);
    closed.forEach((test) => { test.open = true; });
  });
  addEventListener("afterprint", () => {
    closed.forEach((test) => { test.open = false; });
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
  });

  // copying the raw values
  document.addEventListener("click", (event) => {
    if (!event.target.matches?.("button.copy")) return;
    const [button, text] = [event.target, event.target.nextElementSibling];
    getSelection().selectAllChildren(text);
    const done = () => { button.textContent = "Copied"; };
    if (navigator.clipboard) navigator.clipboard.writeText(text.textContent).then(done, () => {});
    else if (document.execCommand("copy")) done();
  });

  // the viewer: slider, single pictures, zoom by wheel, slider or keys, dragging
  const viewer = $("#viewer");
  const stage = $(".stage", viewer);
  const moving = $(".moving", viewer);
  const zoom = $("#zoom");
  const cut = $("#cut");
  const full = $("#full");
  $$("button.pic").forEach((button) => { button.disabled = false; });  // there is no full-size picture to link to
  let shots = [];
  let at = 0;
  let view = { scale: 1, x: 0, y: 0 };

  const picture = (kind) => $(`.pic[data-kind="${kind}"]`, shots[at]);
  const place = (scale, x, y) => {
    const side = stage.clientWidth;
    const least = side * (1 - scale);
    view = { scale, x: Math.min(0, Math.max(least, x)), y: Math.min(0, Math.max(least, y)) };
    moving.style.transform = `translate(${view.x}px, ${view.y}px) scale(${scale})`;
    stage.classList.toggle("near", scale > 2);
    zoom.value = scale;
    slide();
  };
  // the cut stays where the slider stands, however the picture is moved beneath it
  const slide = () => {
    const place = ((cut.value / 100) * stage.clientWidth - view.x) / view.scale / stage.clientWidth;
    stage.style.setProperty("--cut", `${100 * place}%`);
  };
  const scaleTo = (scale, x = stage.clientWidth / 2, y = x) => {
    const wanted = Math.min(12, Math.max(1, scale));
    const ratio = wanted / view.scale;
    place(wanted, x - (x - view.x) * ratio, y - (y - view.y) * ratio);
  };
  const mode = (wanted) => {
    const radio = $(`input[value="${wanted}"]`, viewer);
    if (radio.disabled) return;
    radio.checked = true;
    stage.dataset.mode = wanted;
    cut.disabled = wanted !== "slide";
    const href = picture(wanted === "slide" ? "now" : wanted)?.href;
    full.hidden = !href;
    if (href) full.href = href;
  };
  const show = (index, wanted) => {
    at = (index + shots.length) % shots.length;
    const [first, second] = [shots[at].dataset.first, shots[at].dataset.second];
    $$("[data-name]", viewer).forEach((node) => { node.textContent = node.dataset.name === "first" ? first : second; });
    ["reference", "now", "flip"].forEach((kind) => {
      const source = picture(kind);
      const layer = $(`[data-layer="${kind}"]`, viewer);
      layer.className = `layer ${source ? source.classList[1] : ""}`;
      layer.setAttribute("aria-label", source?.getAttribute("aria-label") ?? "none");
      $(`input[value="${kind}"]`, viewer).disabled = !source;
    });
    $('input[value="slide"]', viewer).disabled = !picture("reference") || !picture("now");
    const name = $(".recipe", shots[at].closest("details.test")).textContent;
    $("#viewer-title").textContent = `${name}: prompt ${at + 1} of ${shots.length}`;
    $("#viewer-caption").textContent = [$(".scores", shots[at]), $(".prompt", shots[at])]
      .map((node) => node?.textContent.trim().replace(/\s+/g, " ")).filter(Boolean).join(" · ");
    const possible = [wanted, "slide", "now", "reference", "flip"].find((one) => !$(`input[value="${one}"]`, viewer).disabled);
    mode(possible);
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.(".pic");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const shot = link.closest(".shot");
    shots = $$(".shot", shot.parentElement);
    viewer.showModal();
    show(shots.indexOf(shot), link.dataset.kind === "flip" ? "flip" : "slide");
    place(1, 0, 0);
  });
  const current = () => $("input[name=mode]:checked", viewer).value;
  const step = (by) => show(at + by, current());
  viewer.addEventListener("click", (event) => {
    const wanted = event.target.dataset.do;
    if (wanted === "close" || event.target === viewer) viewer.close();
    if (wanted === "previous") step(-1);
    if (wanted === "next") step(1);
  });
  viewer.addEventListener("input", (event) => {
    if (event.target === cut) slide();
    else if (event.target === zoom) scaleTo(Number(zoom.value));
    else mode(event.target.value);
  });
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = stage.getBoundingClientRect();
    scaleTo(view.scale * (event.deltaY < 0 ? 1.25 : 0.8), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  stage.addEventListener("pointermove", (event) => {
    if (event.buttons === 1) place(view.scale, view.x + event.movementX, view.y + event.movementY);
  });
  stage.addEventListener("pointerdown", (event) => stage.setPointerCapture(event.pointerId));

  // keys
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches?.("input, select, textarea");
    if (viewer.open) {
      if (event.key === "ArrowLeft" && !typing) step(-1);
      if (event.key === "ArrowRight" && !typing) step(1);
      if (event.key === "+") scaleTo(view.scale * 1.5);
      if (event.key === "-") scaleTo(view.scale / 1.5);
      return;
    }
    if (typing) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (event.key === "/") {
      event.preventDefault();
      $("#search").focus();
    }
    if (event.key === "j" || event.key === "k") {
      const seen = tests.filter((test) => !test.hidden);
      const here = seen.indexOf(document.activeElement.closest?.("details.test"));
      const next = seen[Math.min(seen.length - 1, Math.max(0, here + (event.key === "j" ? 1 : -1)))];
      if (next) $("summary", next).focus();
    }
  });
})();
