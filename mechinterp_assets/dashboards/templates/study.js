(() => {
  const table = document.getElementById("table");
  const body = table.tBodies[0];
  const text = document.getElementById("text");
  const value = (row, column) => {
    const number = parseFloat(row.cells[column].textContent.replace("Layer ", "").replaceAll(",", "").replaceAll("−", "-"));
    return Number.isNaN(number) ? -Infinity : number;
  };
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("button")?.closest("th");
    if (!head) return;
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...body.rows].sort((a, b) => value(a, head.cellIndex) - value(b, head.cellIndex));
    body.replaceChildren(...(up ? rows : rows.reverse()));
  });
  document.getElementById("jump").addEventListener("submit", (event) => {
    event.preventDefault();
    const [layer, feature] = text.value.match(/\d+/g) ?? [];
    const link = document.querySelector(`a[data-layer="${Number(layer)}"]`);
    if (link && feature !== undefined) location.href = link.href.replace(/index\.html$/, `features/${Number(feature)}.html`);
    else document.getElementById("answer").textContent = "Give a layer of this study and a feature";
  });
})();
