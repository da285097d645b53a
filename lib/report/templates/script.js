"use strict";
// A click opens a picture; left and right lead to the next picture, up and down to the next image, in any gallery.
const zoom = document.getElementById("zoom");
const buttons = [...document.querySelectorAll(".pictures button")];
let shown = -1;

function show(index) {
  shown = (index + buttons.length) % buttons.length;
  const button = buttons[shown];
  const small = button.querySelector("img");
  const large = zoom.querySelector("img");
  large.src = small.src;
  large.alt = small.alt;
  zoom.style.setProperty("--shape", small.naturalWidth / small.naturalHeight || 1);
  zoom.querySelector("strong").textContent = button.dataset.id;
  zoom.querySelector("span").textContent = `${button.dataset.title} · ${button.dataset.caption}`;
  const folded = button.closest("details");
  if (folded) folded.open = true;
  if (!zoom.open) zoom.showModal();
}

function neighbour(step) {
  const items = [...document.querySelectorAll(".item")];
  const item = buttons[shown].closest(".item");
  const next = items[(items.indexOf(item) + step + items.length) % items.length];
  const pictures = [...next.querySelectorAll("button")];
  const same = pictures.find((button) => button.dataset.title === buttons[shown].dataset.title) || pictures[0];
  show(buttons.indexOf(same));
}

buttons.forEach((button, index) => button.addEventListener("click", () => show(index)));
zoom.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  moves[button ? button.dataset.move : "Escape"]();
});
zoom.addEventListener("close", () => {
  buttons[shown].focus({ preventScroll: true });
  buttons[shown].scrollIntoView({ block: "nearest" });
});
const moves = {
  ArrowRight: () => show(shown + 1),
  ArrowLeft: () => show(shown - 1),
  ArrowDown: () => neighbour(1),
  ArrowUp: () => neighbour(-1),
  Escape: () => zoom.close(),
};
document.addEventListener("keydown", (event) => {
  if (!zoom.open || !moves[event.key]) return;
  event.preventDefault();
  moves[event.key]();
});

// What is folded away is printed too.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details:not([open])")) {
    details.open = true;
    addEventListener("afterprint", () => { details.open = false; }, { once: true });
  }
});
