for (const choice of document.querySelectorAll(".choice")) {
  const [first, second] = choice.querySelectorAll("select");
  const link = choice.querySelector("a");
  const point = () => { link.href = `${encodeURIComponent(first.value)}/${encodeURIComponent(second.value)}/`; };
  choice.addEventListener("change", point);
  point();
}
