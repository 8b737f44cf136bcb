(() => {
  // Everything shown is made of elements and text: no string from outside becomes HTML.
  const byId = (id) => document.getElementById(id);
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "on") element.addEventListener("click", value);
      else if (name.startsWith("aria-") && value !== undefined && value !== null) element.setAttribute(name, String(value));
      else if (value === true) element.setAttribute(name, "");
      else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  };
  const drawn = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const number = (x) => x === null || x === undefined ? "–"
    : (x !== 0 && (Math.abs(x) < 1e-3 || Math.abs(x) >= 1e5) ? x.toExponential(2) : String(Number(x.toPrecision(3)))).replaceAll("-", "−");
  const percent = (p) => Math.abs(p) < 5e-5 ? (p ? "<0.01%" : "0%") : `${(100 * p).toFixed(Math.abs(p) < 0.00995 ? 2 : 1)}%`.replace("-", "−");
  const token = (label) => make("bdi", { class: "token" }, label);
  const bar = (value, most, kind) => {
    const mark = make("i", { class: kind ?? (value < 0 ? "neg" : "pos") });
    mark.style.width = `${Math.round(58 * Math.abs(value) / (most || 1))}px`;
    return make("td", { class: "bar" }, mark, number(value));
  };
  const largest = (values) => Math.max(0, ...values.map(Math.abs));
  const table = (heads, rows, caption) => make("table", { class: "rows" },
    caption ? make("caption", {}, caption) : null,
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, ...rows));
  const row = (on, ...cells) => make("tr", on ? { class: "on" } : {}, ...cells.map((cell) =>
    cell instanceof HTMLTableCellElement ? cell : make("td", {}, cell)));

  // ---- the view is its address ---------------------------------------------------------------------
  const NUMBERS = ["layer", "pos", "opos", "feature", "flayer", "hlayer", "head", "source"];
  const read = () => {
    const given = new URLSearchParams(location.hash.slice(1));
    const state = { tab: "features", by: "head", open: [], lopen: [], edits: [], slices: null };
    for (const [key, value] of given) {
      if (NUMBERS.includes(key)) { if (/^\d{1,9}$/.test(value)) state[key] = Number(value); }
      else if (["open", "lopen", "edits", "slices"].includes(key)) {
        try { const list = JSON.parse(value); if (Array.isArray(list)) state[key] = list; } catch { /* not a view */ }
      } else if (["study", "text", "other", "tab", "token", "versus", "by", "effect"].includes(key)) state[key] = value;
    }
    return state;
  };
  const address = (state) => {
    const given = new URLSearchParams();
    for (const [key, value] of Object.entries(state)) {
      if (value === undefined || value === null || value === "" || (Array.isArray(value) && !value.length)) continue;
      given.set(key, Array.isArray(value) ? JSON.stringify(value) : value);
    }
    return `#${given}`;
  };
  let state = read();
  const go = (changes) => {
    state = { ...state, ...changes };
    const next = address(state);
    if (next !== location.hash) history.pushState(null, "", next);
    render();
  };
  addEventListener("popstate", () => { state = read(); fill(); render(); });

  // ---- questions -----------------------------------------------------------------------------------
  const kept = new Map(), waiting = new Map();
  const said = (what, done, of) => {
    byId("status").textContent = what;
    const progress = byId("progress");
    progress.hidden = !what;
    if (of) { progress.max = of; progress.value = done; } else progress.removeAttribute("value");
    byId("cancel").hidden = !what;
  };
  class Refused extends Error {}
  const problem = (text) => { byId("problem").textContent = text; byId("problem").hidden = !text; };
  // One question per place of the page: a new one there ends the old one, also on the server.
  const ask = async (place, question) => {
    const key = JSON.stringify(question);
    waiting.get(place)?.abort();
    if (kept.has(key)) return kept.get(key);
    const stop = new AbortController();
    waiting.set(place, stop);
    const late = setTimeout(() => said("working", 0, 0), 250);
    try {
      const response = await fetch("api", { method: "POST", headers: { "Content-Type": "application/json" }, body: key, signal: stop.signal });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "", last = null;
      for (;;) {
        const { value, done } = await reader.read();
        text += value ?? "";
        const lines = text.split("\n");
        text = done ? "" : lines.pop();
        for (const line of lines.filter(Boolean)) {
          last = JSON.parse(line);
          if (last.progress) said(last.progress, last.done, last.of);
        }
        if (done) break;
      }
      if (last?.answer === undefined) throw new Refused(last?.refused ?? "the server gave no answer; is it still running?");
      kept.set(key, last.answer);
      if (kept.size > 400) kept.delete(kept.keys().next().value);
      return last.answer;
    } finally {
      clearTimeout(late);
      if (waiting.get(place) === stop) waiting.delete(place);
      if (!waiting.size) said("", 0, 0);
    }
  };
  byId("cancel").addEventListener("click", () => { for (const stop of waiting.values()) stop.abort(); });
  const about = (more, text = state.text) => ({ study: state.study, text, ...more });
  const copied = (text) => [make("button", { type: "button", class: "copy" }, "Copy"), make("pre", { tabindex: 0 }, text)];
  const code = (answer) => make("div", { class: "ways" },
    make("details", { class: "code" }, make("summary", {}, "Show the Python"), make("div", {}, ...copied(answer.code))),
    answer.sql.length ? make("details", { class: "code sql" }, make("summary", {}, "Show the SQL"),
      ...answer.sql.map((one) => make("div", {}, make("p", { class: "note" }, `SQL of ${one.of}`), ...copied(one.sql)))) : null);

  // ---- names and links -----------------------------------------------------------------------------
  let prompt = null, second = null;
  const tokenAt = (position) => prompt.tokens[position]?.token ?? "";
  const featureName = (names, layer, feature) => {
    const known = names[`${layer}.${feature}`] ?? {};
    const what = make("span", {});
    if (known.meaning) what.append(known.meaning, " ");
    if (known.fires_on) what.append(make("small", {}, "on "), token(known.fires_on), " ");
    if (known.promotes) what.append(make("small", {}, "→ "), token(known.promotes));
    return what;
  };
  const pageLink = (names, layer, feature) => {
    const href = names[`${layer}.${feature}`]?.href;
    return href ? make("a", { href, title: `Page of feature ${feature} of layer ${layer}` }, "page") : null;
  };
  const button = (text, on, label) => make("button", { type: "button", on, "aria-label": label }, text);
  const openFeature = (layer, feature, position) => button(String(feature),
    () => go({ tab: "features", layer, pos: position, feature, flayer: layer, open: [] }), `Feature ${feature} of layer ${layer}`);
  const openHead = (layer, head, more = {}) => button(`L${layer}H${head}`,
    () => go({ tab: "heads", hlayer: layer, head, source: null, slices: null, ...more }), `Attention of head ${head} of layer ${layer}`);
  const addEdit = (edit) => go({ tab: "whatif", edits: [...state.edits, edit] });
  const scaledFeature = (layer, feature, factor) => ({ kind: "sae_feature_ablation", layer, feature, alpha: 1 - factor });
  const scaledHead = (layer, head, factor) => ({ kind: "head_scaling", layer, head, alpha: factor });

  // ---- tokens --------------------------------------------------------------------------------------
  const tokenRow = (which, tokens, chosen, shade, choose, title) => {
    const buttons = tokens.map((one, position) => {
      const mark = make("button", {
        type: "button", class: one.counted ? null : "away", "aria-pressed": position === chosen,
        tabindex: position === chosen ? 0 : -1, on: () => choose(position),
        title: `position ${position}${one.log_probability === null ? "" : `, probability ${percent(Math.exp(one.log_probability))}`}`,
      }, one.token);
      if (shade?.[position]) mark.style.setProperty("--a", (0.12 + 0.55 * shade[position]).toFixed(3));
      return mark;
    });
    const list = make("ol", { class: "tokens", "aria-label": title, id: which }, ...buttons.map((b) => make("li", {}, b)));
    list.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, Home: -tokens.length, End: tokens.length }[event.key];
      if (!step) return;
      event.preventDefault();
      const now = buttons.indexOf(document.activeElement);
      buttons[Math.min(tokens.length - 1, Math.max(0, now + step))].focus();
    });
    return list;
  };
  const showTokens = (shade = null) => {
    // Drawn twice in most views: the second time with shades.
    const focused = document.activeElement?.closest?.(".tokens")?.id;
    const rows = [tokenRow("first-tokens", prompt.tokens, state.pos, shade, (pos) => go({ pos, open: [], lopen: [], source: null, slices: null, token: null }), "Tokens of the prompt")];
    if (second) rows.push(tokenRow("second-tokens", second.tokens, state.opos, null, (opos) => go({ opos, tab: "compare" }), "Tokens of the second prompt"));
    byId("tokens").replaceChildren(...rows);
    if (focused) byId(focused)?.querySelector("[aria-pressed=true]")?.focus();
  };
  const TABS = { features: "Features", next: "Next token", heads: "Heads", whatif: "What if", compare: "Compare" };
  const showTabs = () => {
    const tabs = byId("tabs");
    tabs.hidden = false;
    const names = Object.keys(TABS).filter((name) => name !== "compare" || second);
    const buttons = names.map((name) => make("button", {
      type: "button", role: "tab", "aria-selected": state.tab === name, tabindex: state.tab === name ? 0 : -1, on: () => go({ tab: name }), id: `tab-${name}`,
    }, TABS[name]));
    const hadFocus = tabs.contains(document.activeElement);
    tabs.replaceChildren(...buttons);
    if (hadFocus) byId(`tab-${state.tab}`)?.focus();
  };
  byId("tabs").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const all = [...byId("tabs").children];
    all[(all.indexOf(document.activeElement) + step + all.length) % all.length].focus();
  });

  // ---- features ------------------------------------------------------------------------------------
  const showFeatures = async () => {
    if (!prompt.layers.includes(state.layer)) return [[make("p", {}, "This study has no SAE yet: see Next token and Heads.")], []];
    const answer = await ask("list", about({ ask: "features", layer: state.layer }));
    const at = answer.features, rows = [];
    for (let i = 0; i < at.feature.length; i++) if (at.position[i] === state.pos) rows.push(i);
    const most = largest(rows.map((i) => at.activation[i]));
    const chosen = state.feature !== null && state.flayer === state.layer ? state.feature : null;
    const shade = {};
    if (chosen !== null) {
      const strongest = largest(at.activation.filter((_, i) => at.feature[i] === chosen));
      at.feature.forEach((feature, i) => { if (feature === chosen) shade[at.position[i]] = at.activation[i] / strongest; });
    }
    showTokens(shade);
    const errors = prompt.errors, e = errors.position.findIndex((p, i) => p === state.pos && errors.layer[i] === state.layer);
    const list = [make("h2", {}, `Features of layer ${state.layer} at position ${state.pos} `, token(tokenAt(state.pos)))];
    if (e < 0) list.push(make("p", { class: "note" }, "SAEs are trained on neither position 0 nor BOS: no features here."));
    else list.push(make("p", { class: "note" }, `${rows.length} active; the SAE leaves ${percent((errors.error_norm[e] / errors.z_norm[e]) ** 2)} of |z|².`));
    if (rows.length) list.push(table(["feature", "activation", "what is known of it", ""], rows.map((i) => row(at.feature[i] === chosen,
      openFeature(state.layer, at.feature[i], state.pos), bar(at.activation[i], most, "act"),
      make("td", { class: "wide" }, featureName(answer.names, state.layer, at.feature[i])), pageLink(answer.names, state.layer, at.feature[i])))));
    list.push(code(answer));
    return [list, chosen === null ? [make("p", { class: "note" }, "Choose a feature: its attribution by head and source, and the way back through the model.")] : await showFeature(answer)];
  };
  const showFeature = async (features) => {
    const { flayer: layer, feature, pos: position } = state;
    const at = features.features, active = at.feature.some((f, i) => f === feature && at.position[i] === position);
    if (!active) return [make("h2", {}, `Feature ${feature} of layer ${layer}`), make("p", { class: "note" }, "Not active at this position; the tokens above show where it is.")];
    const [dfa, parts] = [await ask("dfa", about({ ask: "dfa", layer, feature, position })),
      await ask("parts", about({ ask: "parts", root: { layer, feature, position }, paths: [[], ...state.open] }))];
    const most = largest(dfa.heads), mostSource = largest(dfa.sources);
    const order = (values) => values.map((_, i) => i).sort((a, b) => Math.abs(values[b]) - Math.abs(values[a]));
    return [
      make("h2", {}, `Feature ${feature} of layer ${layer}: ${number(dfa.activation)} at `, token(tokenAt(position)), " ", pageLink(features.names, layer, feature)),
      make("p", {}, featureName(features.names, layer, feature), " ",
        button("Ablate it", () => addEdit(scaledFeature(layer, feature, 0)))),
      ...await showEffect(layer, feature),
      make("div", { class: "pair" },
        table(["head", "direct attribution"], order(dfa.heads).map((head) => row(false, openHead(layer, head), bar(dfa.heads[head], most)))),
        table(["source", "direct attribution"], order(dfa.sources).slice(0, 10).map((source) => row(false,
          make("span", {}, make("small", {}, `${source} `), token(tokenAt(source))), bar(dfa.sources[source], mostSource))))),
      make("p", { class: "note" }, `Heads and encoder bias (${number(dfa.bias)}) sum to the activation.`), code(dfa),
      make("h3", {}, "Back through the model"), tree(parts, dfa.activation, "open"), code(parts),
    ];
  };
  const showEffect = async (layer, feature) => {
    const form = make("form", { id: "effect", class: "adding" }, make("label", {}, "Effect on the logit of ", make("input", { type: "text", value: state.effect ?? "", maxlength: 256, placeholder: "a token, with its space" })), make("button", { type: "submit" }, "Show"));
    if (!state.effect) return [form];
    try {
      const found = await ask("effect", { ask: "logit_effect", study: state.study, layer, feature, token: state.effect });
      return [form, make("p", { id: "effect-found" }, token(found.token), ` ${number(found.logit_effect)} per unit of activation, `, make("small", {}, `before the final norm’s scale; ${found.rank} of ${found.n_tokens} tokens get more`)), code(found)];
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      return [form, make("p", { class: "problem" }, error.message)];
    }
  };
  const WORDS = {
    source: "source", encoder_bias: "encoder bias", value_bias: "value bias", embedding: "embedding", position: "position",
    attention: "attention of layer", mlp: "MLP of layer", head: "head", sae_error: "SAE error of layer", sae_bias: "SAE bias of layer",
    output_bias: "output bias of layer", unembedding_bias: "unembedding bias", feature: "feature",
    residual_error: "error of the residual SAE before layer", residual_bias: "bias of the residual SAE before layer",
  };
  const nodeText = (part, names) => {
    const what = make("span", { class: "what" });
    if (part.node_kind === "source") what.append(make("small", {}, `source ${part.position} `), token(part.token), part.strongest_head === null ? "" : make("small", {}, ` most by head ${part.strongest_head}`));
    else if (part.node_kind === "feature") what.append(openFeature(part.layer, part.feature, part.position), make("small", {}, ` of layer ${part.layer}, `), featureName(names, part.layer, part.feature), " ", pageLink(names, part.layer, part.feature) ?? "");
    else if (part.node_kind === "residual_feature") what.append(`residual feature ${part.feature} `, make("small", {}, `before layer ${part.layer} at ${part.position} `), token(part.token));
    else if (part.node_kind === "head") what.append(openHead(part.layer, part.head, { pos: part.position }));
    else what.append(WORDS[part.node_kind] ?? part.node_kind, ["attention", "mlp", "sae_error", "sae_bias", "output_bias", "residual_error", "residual_bias"].includes(part.node_kind) ? ` ${part.layer}` : "");
    return what;
  };
  // key: where the address keeps the opened paths of this tree.
  const tree = (answer, whole, key) => {
    const found = new Map(answer.opened.map((one) => [one.path.join("/"), one]));
    const branch = (path) => {
      const own = found.get(path.join("/"));
      if (!own) return null;
      const items = own.parts.slice(0, 12).map((part) => {
        const next = [...path, part.name], name = next.join("/"), isOpen = found.has(name);
        const toggle = part.can_split
          ? make("button", { type: "button", "aria-expanded": isOpen, "aria-label": `Parts of ${part.node_kind} ${part.name}`, on: () => go({ [key]: isOpen ? state[key].filter((p) => !`${p.join("/")}/`.startsWith(`${name}/`)) : [...state[key], next] }) }, isOpen ? "−" : "+")
          : make("span", { class: "none" });
        return make("li", {}, make("div", {}, toggle, make("span", { title: `${percent(part.value / whole)} of the whole` }, number(part.value)), nodeText(part, answer.names)), branch(next));
      });
      const rest = own.parts.slice(12), n = rest.length + own.n_rest;
      if (n) items.push(make("li", {}, make("div", {}, make("span", { class: "none" }), make("span", {}, number(rest.reduce((sum, part) => sum + part.value, own.rest))), make("span", { class: "what" }, make("small", {}, `${n} others`)))));
      return make("ul", { class: "branch" }, ...items);
    };
    return branch([]) ?? make("p", { class: "note" }, "Nothing to open.");
  };

  // ---- next token ----------------------------------------------------------------------------------
  const showNext = async () => {
    const answer = await ask("list", about({ ask: "next", position: state.pos }));
    const most = largest(answer.next.map((one) => one.probability));
    const chosen = state.token === undefined || state.token === null ? answer.next[0].token_id : Number(state.token);
    const layers = new Map();
    for (const one of answer.lens) layers.set(one.layer, [...(layers.get(one.layer) ?? []), one]);
    showTokens();
    const list = [
      make("h2", {}, "Next token behind ", token(tokenAt(state.pos))),
      table(["token", "probability", "logit"], answer.next.map((one) => row(one.token_id === chosen,
        make("button", { type: "button", on: () => go({ token: one.token_id, lopen: [] }) }, token(one.token)),
        make("td", { class: "bar" }, (() => { const mark = make("i", { class: "pos" }); mark.style.width = `${Math.round(58 * one.probability / most)}px`; return mark; })(), percent(one.probability)),
        number(one.logit)))),
      make("h3", {}, "Logit lens"),
      table(["before layer", "likeliest"], [...layers].map(([layer, ones]) => row(false, layer === prompt.n_layers ? "the model" : String(layer),
        make("span", {}, ...ones.flatMap((one) => [token(one.token), make("small", {}, ` ${percent(one.probability)} `)]))))),
      code(answer),
    ];
    const versus = state.versus ? (/^\d+$/.test(state.versus) ? Number(state.versus) : state.versus) : null;
    const root = { token: chosen, position: state.pos, versus };
    const [direct, parts] = [await ask("dfa", about({ ask: "logits", ...root, by: state.by === "feature" ? "feature" : "head" })),
      await ask("parts", about({ ask: "parts", root, paths: [[], ...state.lopen] }))];
    const against = make("input", { type: "text", value: state.versus ?? "", "aria-label": "Less the logit of this token", placeholder: "mean logit" });
    const name = answer.next.find((one) => one.token_id === chosen)?.token ?? `token ${chosen}`;
    const by = (name, text) => make("button", { type: "button", "aria-pressed": state.by === name, on: () => go({ by: name }) }, text);
    const largestPart = largest(direct.parts.map((part) => part.value));
    return [list, [
      make("h2", {}, "Who wrote the logit of ", token(name), `: ${number(direct.value)}`),
      make("form", { class: "adding", id: "versus" }, "less that of", against, make("button", { type: "submit" }, "Set"), "by", by("head", "heads"), by("feature", "features")),
      table(["part", "direct effect"], [...direct.parts.slice(0, 15).map((part) => row(false, nodeText(part, direct.names), bar(part.value, largestPart)))], ""),
      make("p", { class: "note" }, `${Math.max(0, direct.parts.length - 15) + direct.n_rest} others: ${number(direct.rest + direct.parts.slice(15).reduce((sum, part) => sum + part.value, 0))}. Parts sum to the logit.`),
      code(direct), make("h3", {}, "Back through the model"), tree(parts, parts.value, "lopen"), code(parts),
    ]];
  };

  // ---- heads ---------------------------------------------------------------------------------------
  const showHeads = async () => {
    const layer = Math.min(state.hlayer ?? state.layer ?? 0, prompt.n_layers - 1);
    const answer = await ask("list", about({ ask: "heads", layer, position: state.pos }));
    const choice = make("select", { "aria-label": "Layer of the heads" }, ...Array.from({ length: prompt.n_layers }, (_, n) => make("option", { value: n, selected: n === layer }, String(n))));
    choice.addEventListener("change", () => go({ hlayer: Number(choice.value), head: null, source: null, slices: null }));
    const at = answer.heads, rows = [];
    for (let head = 0; head < prompt.n_heads; head++) {
      const own = at.head.map((h, i) => i).filter((i) => at.head[i] === head);
      rows.push(row(head === state.head, openHead(layer, head),
        make("td", { class: "wide" }, ...own.flatMap((i) => [token(tokenAt(at.source[i])), make("small", {}, ` ${percent(at.attention[i])} `)])),
        make("span", {}, button("Ablate", () => addEdit(scaledHead(layer, head, 0)), `Ablate head ${head} of layer ${layer}`), " ",
          answer.heads_href ? make("a", { href: `${answer.heads_href}L${String(layer).padStart(2, "0")}H${String(head).padStart(2, "0")}.html` }, "page") : "")));
    }
    showTokens();
    const list = [make("h2", {}, "Heads of layer ", choice, " at ", token(tokenAt(state.pos))), table(["head", "attends most to", ""], rows), code(answer)];
    if (state.head === null || state.head === undefined || state.head >= prompt.n_heads) return [list, [make("p", { class: "note" }, "Choose a head: its attention pattern and what carries it.")]];
    const pattern = await ask("dfa", about({ ask: "pattern", layer, head: state.head }));
    const own = pattern.pattern[state.pos];
    showTokens(Object.fromEntries(own.map((value, source) => [source, value])));
    const best = own.map((_, i) => i).sort((a, b) => own[b] - own[a]).slice(0, 6);
    const detail = [
      make("h2", {}, `Attention of L${layer}H${state.head}`),
      make("div", { class: "spread" }, drawPattern(pattern.pattern),
        table([`from position ${state.pos} to`, "attention"], best.map((source) => row(source === state.source,
          make("button", { type: "button", on: () => go({ source, slices: null }) }, make("small", {}, `${source} `), token(tokenAt(source))), bar(own[source], 1))), "A source shows what carries its score")),
      code(pattern)];
    if (state.source !== null && state.source !== undefined && state.source <= state.pos) detail.push(...await showSlices(layer));
    return [list, detail];
  };
  const drawPattern = (pattern) => {
    const n = pattern.length;
    const svg = drawn("svg", { viewBox: `0 0 ${n} ${n}`, class: "pattern", role: "img", "aria-label": "Attention pattern: destinations downwards, sources to the right; the table beside it has the chosen destination" });
    svg.append(drawn("rect", { width: n, height: n, class: "back" }));
    pattern.forEach((values, d) => values.forEach((value, s) => {
      if (value < 0.005 && !(d === state.pos && s === state.source)) return;
      const cell = drawn("rect", { x: s, y: d, width: 1, height: 1, "fill-opacity": value });
      if (d === state.pos && s === state.source) cell.setAttribute("class", "chosen");
      const title = drawn("title", {});
      title.textContent = `${tokenAt(d)} (${d}) to ${tokenAt(s)} (${s}): ${percent(value)}`;
      cell.append(title);
      cell.addEventListener("click", () => go({ pos: d, source: s, slices: null }));
      svg.append(cell);
    }));
    return svg;
  };
  const showSlices = async (layer) => {
    const pair = { layer, head: state.head, destination: state.pos, source: state.source };
    const answer = await ask("parts", about({ ask: "slices", ...pair, slices: state.slices }));
    const at = answer.slices, most = largest(at.term);
    const chosen = new Set(state.slices ?? at.slice.filter((_, i) => at.selected[i]));
    const flip = (slice) => { const next = new Set(chosen); if (!next.delete(slice)) next.add(slice); if (next.size) go({ slices: [...next].sort((a, b) => a - b) }); };
    const rows = at.slice.slice(0, 12).map((slice, i) => row(chosen.has(slice),
      make("button", { type: "button", "aria-pressed": chosen.has(slice), on: () => flip(slice) }, String(slice)), bar(at.term[i], most), number(at.singular_value[i])));
    const side = (name, title) => {
      const own = answer.sides[name], most = largest(own.value);
      return table([title, "carried"], own.value.slice(0, 12).map((value, i) => row(false,
        own.head[i] !== null ? make("span", {}, openHead(own.layer[i], own.head[i]), own.read_position[i] === null ? "" : make("small", {}, ` read `), own.read_position[i] === null ? "" : token(tokenAt(own.read_position[i])))
          : `${own.writer[i]}${own.layer[i] === null ? "" : ` of layer ${own.layer[i]}`}`, bar(value, most))));
    };
    return [
      make("h3", {}, `Score from ${state.pos} to ${state.source}: ${number(answer.score)} by singular vectors of Ω`),
      make("div", { class: "pair" }, table(["slice", "term", "σ"], rows, "Pressed ones are counted on the right"),
        make("div", {}, side("destination", `written at ${state.pos}`), make("p", {}), side("source", `written at ${state.source}`))),
      make("p", { class: "note" }, `All terms sum to the score; either side's writers sum to the pressed slices' ${number(answer.total)}.`), code(answer)];
  };

  // ---- what if -------------------------------------------------------------------------------------
  const editText = (edit) => {
    const where = edit.position_role && edit.position_role !== "all" ? ` at position ${String(edit.position_role).slice(1)}` : "";
    if (edit.kind === "head_scaling") return `head L${edit.layer}H${edit.head}${where} times`;
    if (edit.kind === "sae_feature_ablation") return `feature ${edit.feature} of layer ${edit.layer}${where} times`;
    if (edit.kind === "activation_patching") return `${edit.site} of layer ${edit.layer}${edit.head === undefined ? "" : `, head ${edit.head},`}${where || " everywhere"} from the second prompt`;
    return JSON.stringify(edit);
  };
  const factorOf = (edit) => edit.kind === "head_scaling" ? edit.alpha ?? 1 : edit.kind === "sae_feature_ablation" ? 1 - (edit.alpha ?? 1) : null;
  const numbered = (name, value, most) => make("label", {}, `${name} `, make("input", { type: "number", name, min: 0, max: most, value, required: true }));
  const showWhatIf = async () => {
    const items = state.edits.map((edit, i) => {
      const factor = factorOf(edit), item = make("li", {}, editText(edit));
      if (factor !== null) {
        const input = make("input", { type: "number", step: "0.25", value: factor, "aria-label": `Factor of ${editText(edit)}` });
        input.addEventListener("change", () => {
          const value = Number(input.value);
          if (input.value !== "" && Number.isFinite(value)) go({ edits: state.edits.map((e, j) => j !== i ? e : { ...e, alpha: e.kind === "head_scaling" ? value : 1 - value }) });
        });
        item.append(input);
      }
      item.append(button("Remove", () => go({ edits: state.edits.filter((_, j) => j !== i) }), `Remove ${editText(edit)}`));
      return item;
    });
    const places = () => make("label", {}, "at ", make("select", { name: "where" }, make("option", { value: "all" }, "all positions"), make("option", { value: `p${state.pos}` }, `position ${state.pos}`)));
    const form = (title, ...fields) => make("form", { class: "adding", "data-add": title }, make("b", {}, title), ...fields, places(), make("button", { type: "submit" }, "Add"));
    const top = prompt.n_layers - 1, heads = prompt.n_heads - 1;
    const list = [
      make("h2", {}, "What if, at ", token(tokenAt(state.pos))),
      items.length ? make("ul", { class: "edits" }, ...items) : make("p", { class: "note" }, "Nothing is changed yet: add an edit, or ablate a head or feature where it is listed."),
      form("Head", numbered("layer", state.hlayer ?? top, top), numbered("head", state.head ?? 0, heads), make("label", {}, "times ", make("input", { type: "number", name: "factor", step: "0.25", value: 0 }))),
      prompt.layers.length ? form("Feature", numbered("layer", state.layer, top), numbered("feature", state.feature ?? 0, 2147483646), make("label", {}, "times ", make("input", { type: "number", name: "factor", step: "0.25", value: 0 }))) : null,
      second ? form("Patch", make("label", {}, "", make("select", { name: "site", "aria-label": "Site" }, ...["z", "attn_out", "mlp_out", "resid_pre"].map((site) => make("option", { value: site }, site)))), numbered("layer", state.layer ?? top, top), make("label", {}, "head ", make("input", { type: "number", name: "one", min: 0, max: heads, placeholder: "all" }))) : make("p", { class: "note" }, "With a second prompt, activations can be patched from it."),
    ];
    showTokens();
    if (!state.edits.length) return [list, []];
    const answer = await ask("dfa", about({ ask: "what_if", position: state.pos, edits: state.edits, ...(state.other ? { other: state.other } : {}) }));
    const chance = (p) => { const mark = make("i", { class: "pos" }); mark.style.width = `${Math.round(70 * p)}px`; return make("td", { class: "bar" }, mark, percent(p)); };
    const most = largest(answer.tokens.map((one) => one.logit_change));
    return [list, [
      make("h2", {}, `The next token changes by ${number(answer.kl)} nats (KL)`),
      table(["token", "before", "after", "change of logit"], answer.tokens.map((one) => row(false, token(one.token), chance(one.before), chance(one.after), bar(one.logit_change, most)))),
      make("p", { class: "note" }, "Logits less their mean over the vocabulary. ", answer.intervention), code(answer)]];
  };
  document.addEventListener("submit", (event) => {
    event.preventDefault();
    const form = event.target;
    if (form.id === "effect") { go({ effect: form.querySelector("input").value }); return; }
    if (form.id === "versus") { go({ versus: form.querySelector("input").value, lopen: [] }); return; }
    const kind = form.dataset.add;
    if (!kind) return;
    const value = (name) => Number(form.elements[name].value), where = form.elements.where.value;
    const at = where === "all" ? {} : { position_role: where };
    if (kind === "Head") addEdit({ ...scaledHead(value("layer"), value("head"), value("factor")), ...at });
    if (kind === "Feature") addEdit({ ...scaledFeature(value("layer"), value("feature"), value("factor")), ...at });
    if (kind === "Patch") {
      const site = form.elements.site.value, one = form.elements.one.value;
      addEdit({ kind: "activation_patching", mode: "noise", source_variant: "other", site, layer: value("layer"), ...(site === "z" && one !== "" ? { head: Number(one) } : {}), ...at });
    }
  });

  // ---- two prompts ---------------------------------------------------------------------------------
  const showCompare = async () => {
    if (!prompt.layers.length) return [[make("p", {}, "This study has no SAE yet.")], []];
    const opos = Math.min(state.opos ?? second.tokens.length - 1, second.tokens.length - 1);
    const answer = await ask("list", about({ ask: "difference", layer: state.layer, position: state.pos, other: state.other, other_position: opos }));
    const at = answer.features, most = largest([...at.activation, ...at.other]);
    const difference = largest(at.difference);
    showTokens();
    const [here, there] = [await ask("dfa", about({ ask: "next", position: state.pos })), await ask("parts", about({ ask: "next", position: opos }, state.other))];
    const answers = (one) => table(["next token", "probability"], one.next.slice(0, 6).map((n) => row(false, token(n.token), percent(n.probability))));
    return [[
      make("h2", {}, `Features of layer ${state.layer}: `, token(tokenAt(state.pos)), " less ", token(second.tokens[opos].token)),
      table(["feature", "first", "second", "difference", ""], at.feature.map((feature, i) => row(false, openFeature(state.layer, feature, state.pos),
        bar(at.activation[i], most, "act"), bar(at.other[i], most, "act"), bar(at.difference[i], difference), pageLink(answer.names, state.layer, feature)))), code(answer)],
    [make("h2", {}, "Answers of the two prompts"), make("div", { class: "pair" }, answers(here), answers(there))]];
  };

  // ---- the page ------------------------------------------------------------------------------------
  const VIEWS = { features: showFeatures, next: showNext, heads: showHeads, whatif: showWhatIf, compare: showCompare };
  let turn = 0;
  const render = async () => {
    const own = ++turn;
    problem("");
    byId("kept").textContent = "";
    try {
      if (!state.study || !state.text) {
        prompt = null;
        byId("tokens").replaceChildren();
        byId("tabs").hidden = true;
        byId("list").replaceChildren();
        // A feature's effect on a token needs no prompt.
        const effect = state.study && Number.isInteger(state.feature) && Number.isInteger(state.flayer) ? await showEffect(state.flayer, state.feature) : [];
        if (own !== turn) return;
        byId("detail").replaceChildren(...effect.length ? [make("h2", {}, `Feature ${state.feature} of layer ${state.flayer}`)] : [], ...effect);
        document.documentElement.dataset.drawn = String(own);
        return;
      }
      const first = await ask("prompt", about({ ask: "prompt" }));
      const other = state.other ? await ask("other", about({ ask: "prompt" }, state.other)) : null;
      if (own !== turn) return;
      prompt = first; second = other;
      const last = prompt.tokens.length - 1;
      state.pos = Math.min(state.pos ?? last, last);
      if (!prompt.layers.includes(state.layer)) state.layer = prompt.layers.at(-1);
      if (state.feature === undefined) state.feature = null;
      if (state.flayer === undefined) state.flayer = state.layer;
      if (!VIEWS[state.tab] || (state.tab === "compare" && !second)) state.tab = "features";
      history.replaceState(null, "", address(state));
      showLayers();
      showTokens();
      showTabs();
      const [list, detail] = await VIEWS[state.tab]();
      if (own !== turn) return;
      const place = document.activeElement?.getAttribute?.("aria-label");
      byId("list").replaceChildren(...list.filter(Boolean));
      byId("detail").replaceChildren(...detail.filter(Boolean));
      // What was pressed is drawn anew: focus goes to its successor.
      if (place && document.activeElement === document.body) [...document.querySelectorAll(".halves [aria-label]")].find((one) => one.getAttribute("aria-label") === place)?.focus();
      document.documentElement.dataset.drawn = String(own);
    } catch (error) {
      if (own !== turn) return;
      if (error.name === "AbortError") problem("Cancelled.");
      else if (error instanceof Refused) problem(error.message);
      else { problem(`The page failed: ${error.message}`); throw error; }
    }
  };
  const showLayers = () => {
    const select = byId("layer");
    select.replaceChildren(...prompt.layers.map((n) => make("option", { value: n, selected: n === state.layer }, String(n))));
    select.disabled = !prompt.layers.length;
  };
  const fill = () => {
    byId("text").value = state.text ?? "";
    byId("other").value = state.other ?? "";
    byId("other").hidden = !state.other;
    byId("second").setAttribute("aria-pressed", String(!byId("other").hidden));
    if (state.study) byId("study").value = state.study;
  };
  const run = () => {
    const text = byId("text").value, other = byId("other").hidden ? "" : byId("other").value;
    const same = text === state.text && byId("study").value === state.study;
    go({ study: byId("study").value, text, other, ...(same ? {} : { pos: undefined, opos: undefined, feature: null, open: [], lopen: [], head: null, source: null, slices: null, token: null, versus: null, edits: [] }) });
  };
  byId("ask").addEventListener("submit", run);
  for (const area of [byId("text"), byId("other")]) area.addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); run(); } });
  byId("layer").addEventListener("change", () => go({ layer: Number(byId("layer").value), feature: null, open: [] }));
  byId("second").addEventListener("click", () => {
    const other = byId("other");
    other.hidden = !other.hidden;
    byId("second").setAttribute("aria-pressed", String(!other.hidden));
    if (other.hidden) { if (state.other) go({ other: "", opos: undefined }); } else { other.value = other.value || byId("text").value; other.focus(); }
  });
  byId("keep").addEventListener("click", async () => {
    try { if (state.text) byId("kept").textContent = (await ask("keep", about({ ask: "keep" }))).kept; kept.delete(JSON.stringify(about({ ask: "keep" }))); } catch (error) { problem(error.message); }
  });
  const load = async (study) => { try { await ask("open", { ask: "open", study }); } catch (error) { if (error instanceof Refused) problem(error.message); } };
  byId("study").addEventListener("change", () => { problem(""); load(byId("study").value); });
  (async () => {
    try {
      const { studies } = await ask("studies", { ask: "studies" });
      const made = studies.filter((study) => study.made);
      byId("study").replaceChildren(...studies.map((study) => make("option", { value: study.name, disabled: !study.made, title: study.description }, study.made ? study.name : `${study.name} (not made)`)));
      if (!made.length) { problem("No study is made yet: run `mechinterp materialize organism`."); return; }
      const preferred = made.find((study) => study.layers.length) ?? made[0];
      byId("study").value = state.study ?? preferred.name;
      fill();
      if (state.text || state.effect) render(); else { render(); byId("text").focus(); load(byId("study").value); }
    } catch (error) { problem(error.message); }
  })();
})();
