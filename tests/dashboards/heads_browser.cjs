// Opens the pages of heads in headless Chromium and prints what it saw as JSON.
// node heads_browser.cjs CHROMIUM FOLDER PAGE,PAGE,...
const { pathToFileURL } = require("node:url");
const { join } = require("node:path");
const { chromium } = require("playwright-core");

const [executablePath, folder, list] = process.argv.slice(2);
const url = (name) => pathToFileURL(join(folder, name)).href;

(async () => {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"] });
  const page = await (await browser.newContext({ viewport: { width: 1300, height: 900 } })).newPage();
  const seen = { dialogs: [], errors: [], requests: [], widths: {} };
  page.on("dialog", (dialog) => { seen.dialogs.push(dialog.message()); dialog.dismiss(); });
  page.on("pageerror", (error) => seen.errors.push(error.message));
  page.on("console", (message) => { if (message.type() === "error") seen.errors.push(message.text()); });
  page.on("request", (request) => { if (!request.isNavigationRequest()) seen.requests.push(request.url()); });

  for (const name of list.split(",")) {
    await page.goto(url(name));
    await page.mouse.move(400, 400);
    for (const width of [1300, 400]) {
      await page.setViewportSize({ width, height: 900 });
      (seen.widths[width] ??= []).push(await page.evaluate("document.documentElement.scrollWidth"));
    }
    await page.setViewportSize({ width: 1300, height: 900 });
  }

  await page.goto(url("index.html"));
  const column = (n) => page.$$eval("#table tbody tr", (rows, n) => rows.filter((row) => !row.hidden).map((row) => row.children[n].textContent), n);
  const sort = async (n) => { await page.click(`#table thead th:nth-child(${n + 1}) button`); return column(n); };
  seen.effectsDown = await sort(2);
  seen.effectsUp = await sort(2);
  seen.heads = await sort(0);
  await page.fill("#text", "INDUCTION");
  seen.found = await column(1);
  seen.count = await page.textContent("#count");
  await page.fill("#text", "no such text");
  seen.none = await page.textContent("#count");
  await page.fill("#text", "");
  await page.click("#table tbody a");
  await page.keyboard.press("ArrowRight");
  await page.waitForURL((to) => to.href.endsWith("H01.html"));
  seen.opened = page.url();
  await browser.close();
  process.stdout.write(JSON.stringify(seen));
})().catch((error) => { console.error(error); process.exit(1); });
