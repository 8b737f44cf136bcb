for (const table of document.querySelectorAll("table[data-rows]")) {
  const body = table.tBodies[0], limit = Number(table.dataset.rows);
  const order = new Intl.Collator("en", { numeric: true });
  const value = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.order ?? cell.textContent.trim();
    const number = Number(text.replaceAll(",", "").replaceAll("−", "-"));
    return text === "" || text === "–" ? null : Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : order.compare(String(a), String(b));
  let open = false;
  const more = document.createElement("button");
  more.type = "button";
  more.className = "rows";
  const cut = () => {
    let n = 0;
    for (const row of body.rows) row.classList.toggle("cut", !row.hidden && ++n > limit && !open);
    more.hidden = n <= limit;
    more.textContent = open ? `Show the first ${limit} rows` : `Show all ${n} rows`;
  };
  more.addEventListener("click", () => { open = !open; cut(); });
  for (const head of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...[...head.childNodes].filter((node) => !node.matches?.(".mark")));
    head.prepend(button);
    button.addEventListener("click", () => {
      const column = head.cellIndex, rows = [...body.rows];
      const before = head.getAttribute("aria-sort");
      const numeric = rows.some((row) => typeof value(row, column) === "number");
      const up = before ? before === "descending" : !numeric || rows[0].cells[column].matches("th");
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      rows.sort((a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        if (x === null || y === null) return Number(x === null) - Number(y === null);
        return up ? compare(x, y) : compare(y, x);
      });
      body.replaceChildren(...rows);
      cut();
    });
  }
  table.after(more);
  table.addEventListener("filtered", cut);
  cut();
}
