document.addEventListener("click", async (event) => {
  if (!event.target.matches("button.copy")) return;
  const pre = event.target.nextElementSibling;
  getSelection().selectAllChildren(pre);
  try { await navigator.clipboard.writeText(pre.textContent); } catch { document.execCommand("copy"); }
  event.target.textContent = "Copied";
  setTimeout(() => { event.target.textContent = "Copy"; }, 1200);
});
