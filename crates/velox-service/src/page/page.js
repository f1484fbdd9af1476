// Optional features of the page: search, a link to the current selection, warnings while selecting, live logs.
"use strict";
const one = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// Shows on the button, and tells screen readers, that something was copied.
function copied(button) {
  const label = one("[data-copied]", button);
  if (!label || label.dataset.was) return;
  label.dataset.was = label.textContent;
  label.textContent = label.dataset.copied;
  const announce = one("[data-announce]");
  if (announce) announce.textContent = label.dataset.copied;
  setTimeout(() => { label.textContent = label.dataset.was; delete label.dataset.was; if (announce) announce.textContent = ""; }, 1600);
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without TLS, browsers have no clipboard API.
    const area = document.createElement("textarea");
    area.value = text;
    area.readOnly = true;
    area.className = "hidden";
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    button.focus();
    if (!done) return;
  }
  copied(button);
}

function choose(form) {
  const release = one("#rr"), typed = one("#ref"), other = one("[data-other]"), search = one("#search");
  const target = form.elements.target;
  const plugins = () => all("[data-plugin]:not(.included)", form).map((card) => ({
    card, box: one("[type=checkbox]", card), version: one(".version", card), name: one("label", card).textContent,
  }));
  const more = () => one("#more").value.split("\n").map((line) => line.trim()).filter(Boolean);
  const roadrunner = () => release.value || typed.value.trim();

  // Escapes like the service: `/` and `@` keep links readable.
  const escaped = (text) => encodeURIComponent(text).replace(/%(2F|40|3A|2C|24|3B|3F)/g, decodeURIComponent);

  // The path and query of the current selection.
  function link() {
    const parts = [["rr", roadrunner()]];
    const chosen = plugins().filter(({ box }) => box.checked);
    for (const { box, version } of chosen) {
      parts.push(["p", `${box.value}@${version.value.trim() || version.dataset.own}`]);
    }
    if (!chosen.length) parts.push(["p", ""]);
    for (const name of ["target", "more", "dependencies", "tags", "replaces", "excludes", "requires", "go", "stamp_version", "stamp_time"]) {
      const value = form.elements[name].value.trim();
      if (value) parts.push([name, value]);
    }
    for (const name of ["debug", "race", "strict"]) if (form.elements[name].checked) parts.push([name, "1"]);
    return "/?" + parts.map(([name, value]) => `${name}=${escaped(value)}`).join("&");
  }

  function say(what, text) {
    const place = one(`[data-said=${what}]`, form);
    if (place.textContent !== text) place.textContent = text;
  }

  function changed() {
    const known = plugins().filter(({ box }) => box.checked).map(({ name }) => name);
    const others = more().map((line) => line.split("@")[0].split("/").filter((part) => !/^v\d+$/.test(part)).pop());
    say("rr", roadrunner() || "…");
    say("target", target.value);
    say("count", String(known.length + others.length));
    one("[data-chips]").replaceChildren(...[...known, ...others].map((name) => {
      const chip = document.createElement("span");
      chip.textContent = name;
      return chip;
    }));
    for (const group of all("[data-group]", form)) {
      const boxes = all("[type=checkbox]", group);
      one("[data-tally]", group).textContent = `${boxes.filter((box) => box.checked).length} of ${boxes.length}`;
    }
    other.hidden = release.value !== "";
    const here = link();
    history.replaceState(null, "", here);
    if (here === one("[data-link]").getAttribute("href")) return;
    one("[data-link]").href = here;
    clearTimeout(waiting);
    waiting = setTimeout(warn, 150);
  }

  // Shows which plugins the selection lacks.
  let waiting, warned = 0;
  async function warn() {
    const mine = ++warned;
    try {
      const answer = await fetch(`/missing${link().slice(1)}`);
      if (!answer.ok) throw new Error(answer.statusText);
      const fresh = one("#missing", new DOMParser().parseFromString(await answer.text(), "text/html"));
      if (mine !== warned) return;
      if (fresh.dataset.missing !== one("#missing").dataset.missing) one("#missing").replaceWith(fresh);
      const accepted = form.elements.accepted;
      one("[data-build-button]").textContent = accepted && accepted.value === fresh.dataset.missing ? "Build anyway" : "Build";
    } catch {
      // The service shows the warning when the form is submitted.
    }
  }

  function select(chosen) {
    for (const { box, version } of plugins()) {
      if (box.checked || !chosen(box)) continue;
      box.checked = true;
      version.value = version.dataset.own;
    }
    changed();
  }

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const group of all("[data-group]", form)) {
      let some = false;
      for (const card of all("[data-plugin]", group)) {
        const text = `${one(".name", card).textContent} ${one(".what", card).textContent} ${card.dataset.plugin}`.toLowerCase();
        card.hidden = !words.every((word) => text.includes(word));
        if (!card.hidden) { some = true; count += 1; }
      }
      group.hidden = !some;
    }
    one("[data-nothing]").hidden = count > 0;
    one("[data-found]").textContent = words.length ? (count === 1 ? "1 plugin" : `${count} plugins`) : "";
  }

  // Loads the plugin versions of another RoadRunner release.
  let asked = 0;
  async function follow() {
    const mine = ++asked;
    const step = one("#plugins");
    step.setAttribute("aria-busy", "true");
    try {
      const was = encodeURIComponent(form.elements.was.value);
      const answer = await fetch(`${link()}&was=${was}`, { headers: { accept: "text/html" } });
      if (!answer.ok) throw new Error(answer.statusText);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (mine !== asked) return;
      one("#groups").replaceWith(one("#groups", fresh));
      one("[data-follows]").replaceWith(one("[data-follows]", fresh));
      one("#more").value = one("#more", fresh).value;
      form.elements.was.value = one("[name=was]", fresh).value;
      filter();
    } catch {
      // Keeps the versions; the service resolves them when the form is submitted.
    } finally {
      if (mine === asked) step.removeAttribute("aria-busy");
      changed();
    }
  }

  // Selects the plugins that a .rr.yaml needs.
  const configuration = one("#configuration-form"), configured = one("#configured");
  async function configure(text) {
    const body = new URLSearchParams(link().slice(2));
    body.set("configuration", text);
    one("details.configuration").open = true;
    try {
      if (text === null) throw new Error("The file is larger than 256 KiB.");
      const answer = await fetch(configuration.action, { method: "POST", body, headers: { accept: "text/html" } });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const told = one("#configured", fresh);
      if (!told) throw new Error("The service did not accept the file.");
      if (answer.ok) {
        one("#groups").replaceWith(one("#groups", fresh));
        filter();
        changed();
      }
      configured.replaceChildren(...told.childNodes);
    } catch (error) {
      configured.textContent = error.message;
    }
    configured.scrollIntoView({ block: "nearest" });
  }
  const read = async (file) => configure(file.size > 256 * 1024 ? null : await file.text());
  one("#configuration-file").addEventListener("change", (event) => {
    if (event.target.files.length) read(event.target.files[0]);
    event.target.value = "";
  });
  configuration.addEventListener("submit", (event) => {
    event.preventDefault();
    configure(one("#configuration").value);
  });
  document.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dragging"); });
  document.addEventListener("drop", (event) => {
    document.body.classList.remove("dragging");
    const [file] = event.dataTransfer.files;
    if (!file) return;
    event.preventDefault();
    read(file);
  });

  form.addEventListener("input", (event) => {
    if (event.target === search) return filter();
    if (event.target.matches(".version")) one("[type=checkbox]", event.target.closest("[data-plugin]")).checked = true;
    if (event.target === release && release.value) typed.value = "";
    changed();
  });
  release.addEventListener("change", () => {
    if (release.value) return follow();
    typed.focus();
  });
  typed.addEventListener("change", () => { if (typed.value.trim()) follow(); });
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") event.preventDefault();
    if (event.key === "Escape" && search.value) { search.value = ""; filter(); event.preventDefault(); }
  });
  document.addEventListener("keydown", (event) => {
    const writes = event.target.closest("input:not([type=checkbox]), textarea, select");
    if (event.key !== "/" || writes || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    search.focus();
  });
  form.addEventListener("click", (event) => {
    const button = event.target.closest("button[name]");
    if (!button) return;
    event.preventDefault();
    if (button.name === "set") {
      for (const { box, version } of plugins()) {
        box.checked = false;
        version.value = version.dataset.own;
      }
      one("#more").value = "";
      changed();
    } else if (button.name === "preset") {
      select((box) => box.dataset.presets.split(" ").includes(button.value));
    } else {
      // The button disappears with the warning.
      one("[data-build-button]").focus();
      select((box) => button.value.split(",").includes(box.value));
    }
  });
  one("[data-link]").addEventListener("click", (event) => {
    event.preventDefault();
    copy(new URL(link(), location.href).href, event.currentTarget);
  });
  // The browser may have restored the form.
  window.addEventListener("pageshow", (event) => { if (event.persisted) changed(); });
  if (location.pathname === "/") changed(); else other.hidden = release.value !== "";
  target.addEventListener("change", () => one("[data-target-hint]")?.remove());
  if ("detected" in target.dataset) detect();

  // Some browsers tell scripts the architecture, which the User-Agent header may lack.
  async function detect() {
    const known = await navigator.userAgentData?.getHighEntropyValues(["architecture"]).catch(() => null);
    const [system, before] = target.value.split("/");
    const arch = { arm: "arm64", x86: "amd64" }[known?.architecture];
    const value = `${system}/${arch}`;
    if (!arch || arch === before || !one("[data-target-hint]") || ![...target.options].some((option) => option.value === value)) return;
    target.value = value;
    changed();
  }
  const wrong = one("#wrong");
  if (wrong) wrong.focus();
}

// A link to a field focuses it and opens the sections around it.
document.addEventListener("click", (event) => {
  const link = event.target.closest("#wrong a");
  const field = link && document.getElementById(link.hash.slice(1));
  if (!field) return;
  event.preventDefault();
  for (let around = field.closest("details"); around; around = around.parentElement.closest("details")) around.open = true;
  field.focus();
  field.scrollIntoView({ block: "center" });
});

function watch(build) {
  const lines = one("[data-lines]", build), live = one("[data-live]", build);
  const order = all("[data-phase]", build).map((item) => item.dataset.phase);
  let first = lines.dataset.first ? Number(lines.dataset.first) : null;
  let announced = "";
  lines.scrollTop = lines.scrollHeight;
  if (!["queued", "running"].includes(build.dataset.state)) return;

  function add(entry) {
    const time = Date.parse(entry.time);
    first ??= time;
    const line = document.createElement("p");
    // Progress is shown on the bar; screen readers skip these lines.
    const counts = entry.done !== undefined;
    line.className = counts ? "output" : entry.level;
    if (counts) line.setAttribute("aria-hidden", "true");
    const span = (name, text) => {
      const part = document.createElement("span");
      part.className = name;
      part.textContent = text;
      line.append(part);
    };
    span("when", `${Math.max(0, (time - first) / 1000).toFixed(1)}s`);
    if (entry.level === "warning" || entry.level === "error") span("hidden", `${entry.level}: `);
    span("text", entry.text);
    // Scrolls only if the end is in view.
    const follows = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 40;
    const empty = one("[data-empty]", lines);
    if (empty) empty.remove();
    lines.append(line);
    while (lines.childElementCount > 2000) lines.firstElementChild.remove();
    if (follows) lines.scrollTop = lines.scrollHeight;
    if (entry.phase) phase(entry);
  }

  function phase(entry) {
    const at = order.indexOf(entry.phase);
    const before = order.indexOf(one("[data-phase].now", build)?.dataset.phase);
    // A late event of an earlier phase is ignored, unless a new attempt starts.
    if (at < 0 || (at < before && at > 0)) return;
    all("[data-phase]", build).forEach((item, index) => {
      const [name, said] = index < at ? ["done", "done"] : index === at ? ["now", "in progress"] : ["next", "pending"];
      if (item.className === name) return;
      item.className = name;
      one("[data-said]", item).textContent = ` (${said})`;
      if (name === "now") item.setAttribute("aria-current", "step"); else item.removeAttribute("aria-current");
    });
    const bar = one("[data-progress]", build), counted = one("[data-counted]", build);
    const known = entry.total > 0 && entry.done !== undefined;
    bar.hidden = !known;
    counted.textContent = known ? `${entry.done} of ${entry.total}` : "";
    if (known) { bar.max = entry.total; bar.value = entry.done; }
    const title = one("span", all("[data-phase]", build)[at]).textContent;
    if (title !== announced) { announced = title; said(`Building: ${title}`); }
  }

  function said(text) {
    const word = one("[data-state-word]", build);
    if (word.textContent !== text) word.textContent = text;
  }

  // The clocks may differ: only the time that passes here is added.
  const passed = one("[data-passed]", build);
  let begun = passed.hidden ? null : Date.now() - 1000 * Number(passed.dataset.passed);
  setInterval(() => {
    if (begun === null) return;
    const seconds = Math.floor((Date.now() - begun) / 1000);
    passed.textContent = seconds < 60 ? `for ${seconds} s` : `for ${Math.floor(seconds / 60)} min ${seconds % 60} s`;
    passed.hidden = false;
  }, 1000);

  // No event reports the position in the queue, so it is polled.
  setInterval(async () => {
    const lead = one("[data-lead]", build);
    if (build.dataset.state !== "queued" || !lead) return;
    try {
      const answer = await fetch(location.pathname, { headers: { accept: "text/html" } });
      const fresh = one("[data-lead]", new DOMParser().parseFromString(await answer.text(), "text/html"));
      if (fresh && fresh.textContent !== lead.textContent) lead.textContent = fresh.textContent;
    } catch {
      // The log shows the lost connection.
    }
  }, 5000);

  const events = new EventSource(`${build.dataset.log}?after=${lines.dataset.after}`);
  events.onopen = () => { live.textContent = "live"; };
  events.onerror = () => { live.textContent = "reconnecting…"; };
  events.onmessage = (event) => add(JSON.parse(event.data));
  events.addEventListener("state", (event) => {
    const { state } = JSON.parse(event.data);
    if (state === build.dataset.state) return;
    build.dataset.state = state;
    one(".state", build).dataset.word = state;
    begun = state === "running" ? Date.now() : null;
    passed.hidden = true;
    said(state === "running" ? "Building" : "Queued");
    const lead = one("[data-lead]", build);
    if (lead) lead.hidden = state === "running";
  });
  events.addEventListener("end", () => {
    events.close();
    location.reload();
  });
}

function files() {
  for (const file of all("[data-file]")) {
    file.addEventListener("toggle", async () => {
      if (!file.open || file.dataset.there) return;
      file.dataset.there = "1";
      try {
        const answer = await fetch(file.dataset.file);
        one("code", file).textContent = answer.ok ? await answer.text() : answer.statusText;
      } catch {
        delete file.dataset.there;
        one("code", file).textContent = "Failed to load the file.";
      }
    });
  }
  for (const button of all("[data-copy]")) {
    button.addEventListener("click", () => copy(document.getElementById(button.dataset.copy).textContent, button));
  }
}

const form = one("[data-choose]");
if (form) choose(form);
const build = one("[data-build]");
if (build) watch(build);
files();
