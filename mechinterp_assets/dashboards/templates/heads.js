(() => {
  const table = document.getElementById("table");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const value = (row, column) => {
    const cell = row.cells[column];
    const number = parseFloat(cell.dataset.order ?? cell.textContent.replaceAll(",", "").replaceAll("−", "-"));
    return Number.isNaN(number) ? cell.textContent.trim() : number;
  };
  const compare = (a, b) => typeof a === typeof b ? (a < b ? -1 : Number(a > b)) : typeof a === "number" ? -1 : 1;
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("button")?.closest("th");
    if (!head) return;
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const column = head.cellIndex;
    const sorted = [...body.rows].sort((a, b) => compare(value(a, column), value(b, column)));
    body.replaceChildren(...(up ? sorted : sorted.reverse()));
  });
  const select = () => {
    const text = document.getElementById("text").value.trim().toLowerCase();
    let shown = 0;
    rows.forEach((row, i) => {
      row.hidden = !texts[i].includes(text);
      shown += !row.hidden;
    });
    document.getElementById("count").textContent = `${shown} of ${rows.length} heads`;
  };
  document.getElementById("search").addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("text").addEventListener("input", select);
  select();
})();
