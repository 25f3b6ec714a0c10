// What is behind a row or a point: opened beside the picture.
import { make, plainTable } from "./tables.js";

export const close = (place) => { place.hidden = true; place.replaceChildren(); };

const heading = (id, text, closed) => {
  const found = make("div", { className: "heading" }, make("h2", { id, textContent: text }));
  const button = make("button", { type: "button", textContent: "Close" });
  button.addEventListener("click", closed);
  found.append(button);
  return found;
};

export const open = async () => {};
export const compare = async () => {};
export { heading, plainTable };
