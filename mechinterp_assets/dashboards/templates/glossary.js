(() => {
  const terms = [...document.querySelectorAll("details.term")];
  const texts = terms.map((term) => term.textContent.toLowerCase());
  const field = document.getElementById("text");
  const select = () => {
    const words = field.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    terms.forEach((term, i) => {
      term.hidden = !words.every((word) => texts[i].includes(word));
      shown += !term.hidden;
      for (const line of term.querySelectorAll(".columns-of > div")) {
        const text = line.textContent.toLowerCase();
        line.classList.toggle("found", words.length > 0 && words.every((word) => text.includes(word)));
      }
    });
    document.getElementById("count").textContent = words.length ? `${shown} of ${terms.length}` : "";
  };
  const open = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const term = target?.closest("details");
    if (!term) return;
    term.open = true;
    target.scrollIntoView({ block: "center" });
  };
  document.getElementById("search").addEventListener("submit", (event) => event.preventDefault());
  field.addEventListener("input", select);
  addEventListener("hashchange", open);
  open();
})();
