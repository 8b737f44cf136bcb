(() => {
  // What only a server has.
  if (location.protocol === "file:") for (const link of document.querySelectorAll("[data-served]")) link.closest("li").remove();
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.popover = "auto";
  document.body.append(tip);
  const glossary = document.getElementById("main").dataset.glossary;
  const show = (near, text, term) => {
    tip.textContent = text;
    if (term) {
      const link = document.createElement("a");
      link.href = `${glossary}#${term}`;
      link.textContent = "Glossary";
      tip.append(" ", link);
    }
    tip.showPopover();
    const at = near.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const below = at.bottom + 6;
    tip.style.left = `${Math.max(8, Math.min(at.left, innerWidth - own.width - 8))}px`;
    tip.style.top = `${below + own.height > innerHeight ? Math.max(8, at.top - own.height - 6) : below}px`;
  };
  for (const owner of document.querySelectorAll("main thead th[title], main .facts [title], main tr[title], main th[data-term]")) {
    const place = owner.matches("tr") ? owner.cells[0] : owner.querySelector("dt") ?? owner;
    const mark = document.createElement("button");
    mark.type = "button";
    mark.className = "mark";
    mark.textContent = "?";
    mark.setAttribute("aria-label", `What is ${place.textContent.trim()}?`);
    mark.addEventListener("click", (event) => {
      event.stopPropagation();
      show(mark, owner.title, owner.dataset.term);
    });
    place.insertBefore(mark, place.querySelector(":scope > svg"));
    mark.before(" ");
  }
  document.addEventListener("click", (event) => {
    const marked = event.target.closest("main [title], main svg :has(> title)");
    if (!marked || marked.querySelector(".mark") || event.target.closest("a, button, summary, label, [role=button]")) return;
    show(marked, marked.getAttribute("title") ?? marked.querySelector(":scope > title").textContent);
  });
})();
