// Opens pages in headless Chromium and prints what it saw as JSON.
// node browser.cjs CHROMIUM SITE LAYER_FOLDER FEATURE,FEATURE,...
const { pathToFileURL } = require("node:url");
const { join } = require("node:path");
const { chromium } = require("playwright-core");

const [executablePath, site, layer, list] = process.argv.slice(2);
const url = (...parts) => pathToFileURL(join(site, ...parts)).href;
const features = list.split(",");

(async () => {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"] });
  const context = await browser.newContext({ viewport: { width: 1300, height: 900 } });
  const page = await context.newPage();
  const seen = { dialogs: [], errors: [], requests: [], widths: {} };
  page.on("dialog", (dialog) => { seen.dialogs.push(dialog.message()); dialog.dismiss(); });
  page.on("pageerror", (error) => seen.errors.push(error.message));
  page.on("console", (message) => { if (message.type() === "error") seen.errors.push(message.text()); });
  page.on("request", (request) => { if (!request.isNavigationRequest()) seen.requests.push(request.url()); });

  const addresses = [url("index.html"), url(layer, "index.html"), ...features.map((f) => url(layer, "features", `${f}.html`))];
  for (const address of addresses) {
    await page.goto(address);
    await page.mouse.move(400, 400);
    for (const width of [1300, 400]) {
      await page.setViewportSize({ width, height: 900 });
      (seen.widths[width] ??= []).push(await page.evaluate("document.documentElement.scrollWidth"));
    }
    await page.setViewportSize({ width: 1300, height: 900 });
  }

  await page.goto(url(layer, "index.html"));
  const column = (n) => page.$$eval("#table tbody tr", (rows, n) => rows.map((row) => row.children[n].textContent), n);
  const count = () => page.textContent("#count");
  seen.all = await count();
  await page.click("th[data-key=density] button");
  seen.byDensity = await column(0);
  seen.densities = await column(1);
  await page.click("th[data-key=density] button");
  seen.byDensityUp = await column(0);
  await page.uncheck("#fired");
  seen.withSilent = await count();
  await page.check("#fired");
  await page.fill("#text", "<SCRIPT>");
  seen.found = await column(0);
  await page.fill("#text", "no such text");
  seen.none = await count();
  await page.fill("#text", "");
  await page.click("#table tbody a");
  seen.opened = page.url();

  await page.goto(url(layer, "features", `${features[0]}.html`));
  await page.keyboard.press("ArrowRight");
  await page.waitForURL((to) => to.href.endsWith(`/${features[1]}.html`));
  const shadow = () => page.$eval(".examples .text b[class*=p5], .examples .text b[class*=n5]", (b) => getComputedStyle(b).boxShadow);
  seen.both = await shadow();
  await page.check("input[value=activation]");
  seen.activationOnly = await shadow();
  await page.click("details.sql summary");
  await page.click("button.copy");
  await page.waitForFunction(() => document.querySelector("button.copy").textContent === "Copied");
  seen.selected = await page.evaluate("getSelection().toString()");
  seen.sql = await page.textContent("details.sql pre");
  await page.click(".heads th a");
  seen.head = page.url();
  seen.target = await page.evaluate("document.querySelector(':target')?.id");

  await page.goto(url("index.html"));
  await page.click("#table thead button");
  seen.layers = await page.$$eval("#table tbody th", (cells) => cells.map((cell) => cell.textContent));
  await page.fill("#text", "99 1");
  await page.press("#text", "Enter");
  seen.refused = await page.textContent("#answer");
  await page.fill("#text", `${Number(layer.slice(1))}.${features[1]}`);
  await page.press("#text", "Enter");
  await page.waitForURL((to) => to.href.endsWith(`/${layer}/features/${features[1]}.html`));
  await browser.close();
  console.log(JSON.stringify(seen));
})();
