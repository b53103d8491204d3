"use strict";
// Tables are sorted by a click on a heading, once more the other way round; cells without a number come last.
for (const table of document.querySelectorAll("table")) {
  table.tHead?.addEventListener("click", (event) => {
    const heading = event.target.closest("th");
    if (!heading) return;
    const up = heading.getAttribute("aria-sort") === "descending";
    for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => {
      const text = row.cells[heading.cellIndex].textContent.trim();
      return text === "–" || text === "" ? null : isNaN(text) ? text : Number(text);
    };
    const rows = [...table.tBodies[0].rows].sort((first, second) => {
      const [a, b] = [value(first), value(second)];
      if (a === null || b === null) return (a === null) - (b === null);
      const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
      return up ? order : -order;
    });
    table.tBodies[0].append(...rows);
  });
}
// A video is its frames, of which one is shown: it plays until the slider or the button is touched.
for (const player of document.querySelectorAll(".player")) {
  const frames = [...player.querySelectorAll("img")];
  const slider = player.querySelector("input");
  const button = player.querySelector("button");
  let playing = true;
  const show = (index) => frames.forEach((frame, place) => (frame.hidden = place !== index));
  const play = (on) => {
    playing = on;
    button.textContent = on ? "Pause" : "Play";
  };
  slider.max = frames.length - 1;
  slider.addEventListener("input", () => (play(false), show(Number(slider.value))));
  button.addEventListener("click", () => play(!playing));
  setInterval(() => {
    if (!playing) return;
    slider.value = (Number(slider.value) + 1) % frames.length;
    show(Number(slider.value));
  }, 150);
  show(0);
  player.classList.add("ready");
}
