(() => {
  const marks = document.querySelectorAll("[data-up]");
  const nodes = document.querySelectorAll("g.node");
  const slider = document.getElementById("filter"), layers = document.getElementById("layers");
  const said = document.getElementById("chosen"), hint = said.textContent;
  const table = document.getElementById("edge-table");
  let chosen = null;
  const show = () => {
    const least = Number(slider.value), lowest = Number(layers?.value ?? 0), near = new Set();
    document.getElementById("least").textContent = slider.value;
    if (layers) document.getElementById("lowest").textContent = layers.value;
    let rows = 0;
    for (const mark of marks) {
      const { up, down, n, layer } = mark.dataset;
      const on = Number(n) >= least && Number(layer) >= lowest && (!chosen || chosen.dataset.head === up || chosen.dataset.head === down);
      if (mark.matches("tr")) { mark.hidden = !on; rows += on; } else mark.style.display = on ? "" : "none";
      if (on) near.add(up).add(down);
    }
    for (const node of nodes) {
      node.style.display = Number(node.dataset.layer) < lowest ? "none" : "";
      node.style.opacity = near.has(node.dataset.head) || node === chosen ? 1 : 0.12;
      node.setAttribute("aria-pressed", node === chosen);
    }
    document.getElementById("n-shown").textContent = rows;
    table.dispatchEvent(new Event("filtered"));
    said.textContent = chosen ? "" : hint;
    if (!chosen) return;
    const link = document.createElement("a");
    link.href = chosen.dataset.href;
    link.textContent = chosen.dataset.head;
    said.append(link, ` acts at ${chosen.dataset.role}; ${near.size - 1} connected heads. Click it again for all.`);
  };
  const choose = (node) => { chosen = chosen === node ? null : node; show(); };
  slider.addEventListener("input", show);
  layers?.addEventListener("input", () => {
    if (chosen && Number(chosen.dataset.layer) < Number(layers.value)) chosen = null;
    show();
  });
  for (const node of nodes) {
    node.addEventListener("click", () => choose(node));
    node.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(node); }
    });
  }
  show();
})();
