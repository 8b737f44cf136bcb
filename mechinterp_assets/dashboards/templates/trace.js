const marks = document.querySelectorAll("[data-up]");
const slider = document.getElementById("filter");
let chosen = null;
const show = () => {
  document.getElementById("least").textContent = slider.value;
  const near = new Set();
  for (const mark of marks) {
    const { up, down, n } = mark.dataset;
    const on = Number(n) >= Number(slider.value) && (!chosen || chosen === up || chosen === down);
    mark.style.display = on ? "" : "none";
    if (on) near.add(up).add(down);
  }
  for (const node of document.querySelectorAll("g.node")) {
    node.style.opacity = near.has(node.dataset.head) || node.dataset.head === chosen ? 1 : 0.2;
    node.setAttribute("aria-pressed", node.dataset.head === chosen);
  }
};
const choose = (node) => { chosen = chosen === node.dataset.head ? null : node.dataset.head; show(); };
slider.addEventListener("input", show);
for (const node of document.querySelectorAll("g.node")) {
  node.addEventListener("click", () => choose(node));
  node.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(node); }
  });
}
