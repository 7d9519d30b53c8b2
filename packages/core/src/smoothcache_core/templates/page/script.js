"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const root = document.documentElement;

  // ------------------------------------------------------------------ dark and light

  const theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const showTheme = () => theme.setAttribute("aria-pressed", String(isDark()));
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("smoothcache-theme", root.dataset.theme); } catch (refused) { /* for this visit only */ }
    showTheme();
  });
  system.addEventListener("change", showTheme);
  showTheme();

  // ------------------------------------------------------------------ what is under the pointer

  const tip = document.getElementById("tip");
  const hideTip = () => { tip.hidden = true; };
  const showTip = (text, x, y) => {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = Math.min(x + 14, innerWidth - box.width - 8);
    const below = y + 16 + box.height < innerHeight;
    tip.style.left = Math.max(8, left) + "px";
    tip.style.top = Math.max(8, below ? y + 16 : y - box.height - 12) + "px";
  };
  addEventListener("scroll", hideTip, { passive: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });

  for (const plot of all(".plot")) {
    const marks = all("g.mark", plot).sort((one, other) => one.dataset.across - other.dataset.across);
    for (const mark of marks) {
      mark.querySelector("title").remove(); // the tip says the same, and more legibly
      const shown = () => {
        const box = mark.querySelector(".halo").getBoundingClientRect();
        showTip(mark.dataset.tip, box.right - 6, box.top + box.height / 2);
      };
      mark.addEventListener("pointerenter", shown);
      mark.addEventListener("pointerleave", hideTip);
      mark.addEventListener("focus", shown);
      mark.addEventListener("blur", hideTip);
      mark.addEventListener("click", () => mark.focus());
    }
    plot.addEventListener("keydown", (event) => {
      const at = marks.indexOf(document.activeElement);
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      if (at < 0 || !step) return;
      event.preventDefault();
      marks[(at + step + marks.length) % marks.length].focus();
    });
  }

  // ------------------------------------------------------------------ skip maps

  for (const map of all(".map")) {
    const grid = map.querySelector(".grid");
    const told = map.querySelector(".told");
    const lines = all("path[data-cells]", grid);
    const width = lines[0].dataset.cells.length;
    let line = 0;
    let column = 0;
    grid.setAttribute("role", "application");
    grid.setAttribute("aria-label", grid.getAttribute("aria-label") + ". Arrow keys go through it.");

    const clear = () => all(".cursor", grid).forEach((cursor) => cursor.setAttribute("visibility", "hidden"));
    const text = () => {
      const { kind, site, cells } = lines[line].dataset;
      const what = cells[column] === "1" ? "computed" : "reused or filled";
      return `${kind}, evaluation ${column}: ${what}` + (site ? ` (${site})` : "");
    };
    const show = () => {
      clear();
      const svg = lines[line].ownerSVGElement;
      const cursor = svg.querySelector(".cursor");
      cursor.setAttribute("x", column);
      cursor.setAttribute("y", all("path[data-cells]", svg).indexOf(lines[line]));
      cursor.setAttribute("visibility", "visible");
      told.textContent = text();
    };
    for (const svg of all("svg", grid)) {
      const own = all("path[data-cells]", svg);
      const follow = (event) => {
        const box = svg.getBoundingClientRect();
        const place = (value, length, count) => Math.min(count - 1, Math.max(0, Math.floor((value / length) * count)));
        column = place(event.clientX - box.left, box.width, width);
        line = lines.indexOf(own[place(event.clientY - box.top, box.height, own.length)]);
        show();
        showTip(text().replace(" (", "\n").replace(/\)$/, ""), event.clientX, event.clientY);
      };
      svg.addEventListener("pointermove", follow);
      svg.addEventListener("pointerdown", follow);
      svg.addEventListener("pointerleave", () => { hideTip(); if (document.activeElement !== grid) clear(); });
    }
    grid.addEventListener("focus", show);
    grid.addEventListener("blur", clear);
    grid.addEventListener("keydown", (event) => {
      const [down, right] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key] || [0, 0];
      if (!down && !right) return;
      event.preventDefault();
      line = Math.min(lines.length - 1, Math.max(0, line + down));
      column = Math.min(width - 1, Math.max(0, column + right));
      show();
    });
  }

  // ------------------------------------------------------------------ plain beside cached

  for (const compare of all(".compare")) {
    const panels = all(".panel", compare);
    const range = compare.querySelector("input[type=range]");
    const flip = compare.querySelector("[data-flip]");
    const play = compare.querySelector("[data-play]");
    const side = compare.querySelector("[data-side]");
    const sound = compare.dataset.kind === "sound";
    const media = all("audio, video", compare);
    media.forEach((each) => { each.dataset.address = each.getAttribute("src"); });
    const current = () => panels.find((panel) => !panel.hidden);
    const videos = () => all("video", current());

    // browsers open a limited number of players: those of hidden panels are closed
    const open = (each) => {
      if (!each.hasAttribute("src")) each.setAttribute("src", each.dataset.address);
      each.preload = "metadata";
    };
    const close = (each) => {
      if (!each.hasAttribute("src")) return;
      each.pause();
      each.removeAttribute("src");
      each.load();
    };
    const choose = (index) => {
      panels.forEach((panel, place) => {
        panel.hidden = place !== index;
        all("audio, video", panel).forEach(panel.hidden ? close : open);
      });
      if (play) playing(play.getAttribute("aria-pressed") === "true");
    };
    const choices = all(".picker input", compare);
    choices.forEach((choice, index) => choice.addEventListener("change", () => choose(index)));

    const split = (percent) => {
      const value = Math.round(Math.min(100, Math.max(0, percent)));
      range.value = value;
      range.setAttribute("aria-valuetext", `${value} percent plain, ${100 - value} percent cached`);
      compare.style.setProperty("--split", value + "%");
    };
    range.addEventListener("input", () => split(Number(range.value)));
    for (const stack of all(".stack", compare)) {
      const follow = (event) => {
        if (compare.dataset.view !== "slider" || (event.pointerType !== "mouse" && !event.isPrimary)) return;
        const box = stack.getBoundingClientRect();
        split((100 * (event.clientX - box.left)) / box.width);
      };
      stack.addEventListener("pointerdown", follow);
      stack.addEventListener("pointermove", (event) => { if (event.buttons || event.pointerType !== "mouse") follow(event); });
      stack.addEventListener("dragstart", (event) => event.preventDefault());
    }

    const swap = () => {
      for (const pair of all(".players", current())) {
        const [plain, cached] = all("audio", pair);
        const [from, to] = plain.paused ? [cached, plain] : [plain, cached];
        if (from.paused) continue;
        to.currentTime = from.currentTime;
        from.pause();
        to.play().catch(() => {});
      }
    };
    flip.addEventListener("click", () => {
      const flipped = flip.getAttribute("aria-pressed") !== "true";
      flip.setAttribute("aria-pressed", String(flipped));
      split(flipped ? 0 : 100);
      if (sound) swap();
    });
    const only = (event) => media.forEach((each) => { if (each !== event.target) each.pause(); });
    if (sound) media.forEach((each) => each.addEventListener("play", only));

    const playing = (on) => {
      play.setAttribute("aria-pressed", String(on));
      play.textContent = on ? "Pause all" : "Play all";
      if (on) startsAlone.disconnect();
      for (const each of videos()) {
        if (!on) { each.pause(); continue; }
        each.currentTime = 0;
        each.play().catch(() => {});
      }
    };
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const startsAlone = new IntersectionObserver((seen) => { if (seen.some((each) => each.isIntersecting)) playing(true); });
    if (play) {
      play.addEventListener("click", () => playing(play.getAttribute("aria-pressed") !== "true"));
      if (!still) startsAlone.observe(compare.querySelector(".tools"));
    }

    const view = () => {
      compare.dataset.view = side.checked ? "side" : "slider";
      all(".stack video", compare).forEach((each) => { each.controls = side.checked; });
    };
    side.addEventListener("change", view);
    const difference = compare.querySelector("[data-difference]");
    const differs = () => compare.toggleAttribute("data-differs", difference.checked);
    difference.addEventListener("change", differs);
    differs();
    if (innerWidth <= 640) side.checked = false; // three in a row would be too small
    view();
    split(50);
    choose(choices.findIndex((choice) => choice.checked));
  }

  // ------------------------------------------------------------------ the line to type

  for (const button of all("[data-copy]")) {
    const code = button.parentElement.querySelector("code");
    button.addEventListener("click", async () => {
      const selection = getSelection();
      selection.selectAllChildren(code);
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch (refused) {
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
})();
