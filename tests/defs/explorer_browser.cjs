// Uses the explorer in headless Chromium and prints what it saw as JSON.
// node explorer_browser.cjs CHROMIUM URL STUDY LAYER TEXT
const { chromium } = require("playwright-core");

const [executablePath, url, study, layer, text] = process.argv.slice(2);
const HOSTILE = "<img src=x onerror=alert(1)> \u202e</script><script>alert(2)</script>";

(async () => {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"] });
  const page = await (await browser.newContext({ viewport: { width: 1280, height: 720 } })).newPage();
  page.setDefaultTimeout(60000);
  const seen = { dialogs: [], errors: [], requests: [], widths: {} };
  page.on("dialog", (dialog) => { seen.dialogs.push(dialog.message()); dialog.dismiss(); });
  page.on("pageerror", (error) => seen.errors.push(error.message));
  page.on("console", (message) => { if (message.type() === "error") seen.errors.push(message.text()); });
  page.on("request", (request) => { if (!request.isNavigationRequest()) seen.requests.push(request.url()); });
  // A view is drawn when its number is another than before.
  const drawn = () => page.evaluate("document.documentElement.dataset.drawn ?? ''");
  const after = async (act) => {
    const before = await drawn();
    await act();
    await page.waitForFunction((n) => (document.documentElement.dataset.drawn ?? "") !== n || !document.getElementById("problem").hidden, before);
    const problem = await page.textContent("#problem");
    if (problem) throw new Error(problem);
  };
  const widths = async () => {
    for (const width of [1280, 400]) {
      await page.setViewportSize({ width, height: 720 });
      (seen.widths[width] ??= []).push(await page.evaluate("document.documentElement.scrollWidth"));
    }
    await page.setViewportSize({ width: 1280, height: 720 });
  };
  const tab = (name) => after(() => page.click(`#tabs button:has-text("${name}")`));
  const texts = (selector) => page.$$eval(selector, (all) => all.map((one) => one.textContent));

  await page.goto(url);
  await page.selectOption("#study", study);
  await page.fill("#text", text);
  await after(() => page.click("#run"));
  await after(() => page.selectOption("#layer", layer)).catch(() => {});
  seen.tokens = await texts("#first-tokens button");
  seen.features = await texts("#list tbody td:first-child button");
  seen.code = await page.textContent("#list .code pre");
  seen.layer = layer;
  seen.sql = await page.textContent("#list .code.sql pre");
  await after(() => page.click("#list tbody td:first-child button"));
  // Open the largest part that can be opened, three levels down.
  for (let level = 0; level < 3; level++) {
    const closed = "#detail " + ".branch ".repeat(level + 1) + '> li > div > button[aria-expanded="false"]';
    if (!(await page.$(closed))) break;
    await after(() => page.click(closed));
  }
  seen.opened = await page.evaluate(() => Math.max(...[...document.querySelectorAll("#detail .branch")].map((list) => { let n = 0; for (let at = list; at; at = at.parentElement.closest(".branch")) n++; return n; })));
  await widths();
  seen.before = await page.textContent("#detail");
  const address = page.url();
  await page.goto("about:blank");
  await page.goto(address);
  await page.waitForFunction(() => document.documentElement.dataset.drawn);
  seen.again = await page.textContent("#detail");

  // A feature's effect on a token, beside a prompt and without one.
  await page.fill("#effect input", " the");
  await after(() => page.click("#effect button"));
  seen.effect = await page.textContent("#effect-found");
  const feature = new URL(page.url()).hash.match(/feature=(\d+)/)[1];
  await page.goto("about:blank");
  await page.goto(`${url}#study=${study}&flayer=${layer}&feature=${feature}&effect=+the`);
  await page.waitForFunction(() => document.getElementById("effect-found"));
  seen.effectAlone = await page.textContent("#effect-found");
  await page.goto("about:blank");
  await page.goto(address);
  await page.waitForFunction(() => document.documentElement.dataset.drawn);

  await tab("Next token");
  seen.nextToken = await page.textContent("#list tbody button");
  await widths();
  await tab("Heads");
  await after(() => page.click("#list tbody td:first-child button"));
  await after(() => page.click("#detail .spread tbody button"));
  await widths();
  seen.beforeWhatIf = page.url();
  await tab("What if");
  await page.fill('form[data-add="Head"] input[name="layer"]', "0");
  await page.fill('form[data-add="Head"] input[name="head"]', "0");
  await after(() => page.click('form[data-add="Head"] button'));
  seen.changed = await page.textContent("#detail h2");
  seen.edits = await page.textContent("#list .edits");
  await widths();
  await after(() => page.goBack());
  await after(() => page.goBack());
  seen.back = page.url();

  // Keyboard alone: tokens with arrows, a tab with arrows.
  await page.focus("#first-tokens [aria-pressed=true]");
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowRight");
  await after(() => page.keyboard.press("Enter"));
  const byKeyboard = { pressed: await page.$$eval("#first-tokens button", (all) => all.findIndex((one) => one.getAttribute("aria-pressed") === "true")) };
  await page.focus("#tabs [aria-selected=true]");
  await page.keyboard.press("ArrowLeft");
  await after(() => page.keyboard.press("Enter"));
  byKeyboard.tab = await page.textContent("#tabs [aria-selected=true]");
  seen.byKeyboard = byKeyboard;

  await page.click("#second");
  await page.fill("#text", HOSTILE);
  await page.fill("#other", HOSTILE + "<b>");
  await after(() => page.click("#run"));
  await tab("Compare");
  await widths();
  seen.hostileText = (await texts("#first-tokens button")).join("");
  seen.hostileElements = await page.$$eval("main img, main script, main b.x", (all) => all.length);
  await browser.close();
  process.stdout.write(JSON.stringify(seen));
})().catch((error) => { console.error(error); process.exit(1); });
