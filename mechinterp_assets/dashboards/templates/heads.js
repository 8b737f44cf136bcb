(() => {
  const table = document.getElementById("table");
  const rows = [...table.tBodies[0].rows];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const select = () => {
    const text = document.getElementById("text").value.trim().toLowerCase();
    let shown = 0;
    rows.forEach((row, i) => {
      row.hidden = !texts[i].includes(text);
      shown += !row.hidden;
    });
    document.getElementById("count").textContent = `${shown} of ${rows.length} heads`;
    table.dispatchEvent(new Event("filtered"));
  };
  document.getElementById("search").addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("text").addEventListener("input", select);
  select();
})();
