for (const box of document.querySelectorAll("[data-zoom]")) {
  const svg = box.querySelector("svg");
  const whole = svg.getAttribute("viewBox").split(" ").map(Number);
  let [x, y, width, height] = whole;
  const draw = () => svg.setAttribute("viewBox", [x, y, width, height].join(" "));
  const zoom = (factor, across = 0.5, down = 0.5) => {
    const wide = Math.min(whole[2], Math.max(whole[2] / 20, width * factor));
    const tall = whole[3] * wide / whole[2];
    x = Math.min(whole[0] + whole[2] - wide, Math.max(whole[0], x + (width - wide) * across));
    y = Math.min(whole[1] + whole[3] - tall, Math.max(whole[1], y + (height - tall) * down));
    [width, height] = [wide, tall];
    draw();
  };
  const move = (dx, dy) => {
    x = Math.min(whole[0] + whole[2] - width, Math.max(whole[0], x + dx));
    y = Math.min(whole[1] + whole[3] - height, Math.max(whole[1], y + dy));
    draw();
  };
  const bar = document.createElement("div");
  bar.className = "zoom";
  for (const [text, label, act] of [
    ["+", "Zoom in", () => zoom(0.7)], ["−", "Zoom out", () => zoom(1 / 0.7)],
    ["fit", "Whole picture", () => { [x, y, width, height] = whole; draw(); }]]) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.setAttribute("aria-label", label);
    button.addEventListener("click", act);
    bar.append(button);
  }
  box.prepend(bar);
  const scale = () => Math.max(width / svg.clientWidth, height / svg.clientHeight);
  svg.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const at = svg.getBoundingClientRect();
    zoom(event.deltaY > 0 ? 1 / 0.85 : 0.85, (event.clientX - at.left) / at.width, (event.clientY - at.top) / at.height);
  }, { passive: false });
  let held = null;
  svg.addEventListener("pointerdown", (event) => { held = [event.clientX, event.clientY]; });
  addEventListener("pointerup", () => { held = null; });
  svg.addEventListener("pointermove", (event) => {
    if (!held || width === whole[2]) return;
    move((held[0] - event.clientX) * scale(), (held[1] - event.clientY) * scale());
    held = [event.clientX, event.clientY];
  });
}
