(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const body = byId("table").tBodies[0];
  const heads = [...byId("table").tHead.querySelectorAll("th")];
  const size = 100;
  const all = document.documentElement.dataset.pages === "all";
  const headName = (i) => data.head[i] === null ? "–" : `L${data.layer}H${data.head[i]}`;
  const rows = data.feature.map((_, i) => i);
  const texts = rows.map((i) =>
    [data.feature[i], headName(i), data.fires_on[i], data.promotes[i], data.suppresses[i], data.meaning[i]].join("\n").toLowerCase());
  const meant = heads.some((th) => th.dataset.key === "meaning");
  let shown = rows, key = "feature", direction = 1, page = 0;

  const number = (x) => x === null ? "–"
    : (x !== 0 && Math.abs(x) < 1e-3 ? x.toExponential(2) : String(Number(x.toPrecision(3)))).replaceAll("-", "−");
  const cell = (tag, text, token) => {
    const element = document.createElement(tag);
    if (token) {
      const bdi = document.createElement("bdi");
      bdi.className = "token";
      bdi.textContent = text;
      element.append(bdi);
    } else element.textContent = text;
    return element;
  };
  const line = (i) => {
    const row = document.createElement("tr");
    const head = cell("th", "");
    head.scope = "row";
    if (data.linked[i] || (all && data.max[i] !== null)) {
      const link = document.createElement("a");
      link.href = `features/${data.feature[i]}.html`;
      link.textContent = data.feature[i];
      head.append(link);
    } else head.textContent = data.feature[i];
    row.append(head, cell("td", number(data.density[i])), cell("td", number(data.max[i])),
      cell("td", number(data.mean[i])), cell("td", headName(i)),
      cell("td", number(data.share[i])), cell("td", data.fires_on[i] ?? "–", true),
      cell("td", data.promotes[i] ?? "–", true), cell("td", data.suppresses[i] ?? "–", true));
    if (meant) row.append(cell("td", data.meaning[i]));
    return row;
  };
  const compare = (a, b) => {
    const [x, y] = [data[key][a], data[key][b]];
    if (x === y) return a - b;
    if (x === null || y === null) return x === null ? 1 : -1;
    return (x < y ? -1 : 1) * direction;
  };
  const draw = () => {
    const pages = Math.max(1, Math.ceil(shown.length / size));
    page = Math.min(page, pages - 1);
    body.replaceChildren(...shown.slice(page * size, (page + 1) * size).map(line));
    byId("page").textContent = `page ${page + 1} of ${pages}`;
    byId("back").disabled = page === 0;
    byId("forward").disabled = page === pages - 1;
    byId("count").textContent = `${shown.length} of ${rows.length} features`;
    for (const th of heads) {
      if (th.dataset.key === key) th.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      else th.removeAttribute("aria-sort");
    }
  };
  const select = () => {
    const text = byId("text").value.trim().toLowerCase();
    const fired = byId("fired").checked;
    shown = rows.filter((i) => (!fired || data.max[i] !== null) && (!text || texts[i].includes(text)));
    shown.sort(compare);
    page = 0;
    draw();
  };
  byId("search").addEventListener("submit", (event) => event.preventDefault());
  byId("text").addEventListener("input", select);
  byId("fired").addEventListener("change", select);
  byId("back").addEventListener("click", () => { page -= 1; draw(); });
  byId("forward").addEventListener("click", () => { page += 1; draw(); });
  for (const th of heads) th.addEventListener("click", () => {
    const text = ["feature", "head", "fires_on", "promotes", "suppresses", "meaning"].includes(th.dataset.key);
    direction = th.dataset.key === key ? -direction : text ? 1 : -1;
    key = th.dataset.key;
    select();
  });
  if (all) for (const link of document.querySelectorAll("a[data-feature]")) {
    link.href = `features/${link.dataset.feature}.html`;
  }
  select();
})();
