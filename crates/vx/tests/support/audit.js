// What a page does wrong for those who don't see it, or not well: a list of sentences.
const wrong = [];
const all = (selector) => [...document.querySelectorAll(selector)];
const shown = (element) => element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length > 0;
const name = (element) => `<${element.tagName.toLowerCase()} id="${element.id}" class="${element.className}">`;
const byId = (ids) => (ids ? ids.split(" ").map((id) => document.getElementById(id)) : []);

// Everything that can be used has a name.
for (const field of all("input:not([type=hidden]), select, textarea")) {
  const label = field.getAttribute("aria-label") || [...(field.labels ?? [])].map((label) => label.textContent.trim()).join("");
  if (!label) wrong.push(`${name(field)} has no label`);
}
for (const control of all("a, button, summary")) {
  if (!control.textContent.trim() && !control.getAttribute("aria-label")) wrong.push(`${name(control)} has no name`);
}
for (const image of all("img")) if (!image.hasAttribute("alt")) wrong.push(`${name(image)} has no alt`);
for (const group of all("fieldset")) if (!group.querySelector(":scope > legend")?.textContent.trim()) wrong.push(`${name(group)} has no legend`);

// The outline.
if (!document.documentElement.lang) wrong.push("the page says no language");
if (!document.title) wrong.push("the page has no title");
for (const landmark of ["main", "header"]) if (all(landmark).length !== 1) wrong.push(`${all(landmark).length} of ${landmark}`);
if (all("h1").length !== 1) wrong.push(`${all("h1").length} of h1`);
let level = 0;
for (const heading of all("h1, h2, h3, h4, h5, h6")) {
  const next = Number(heading.tagName[1]);
  if (next > level + 1) wrong.push(`h${next} "${heading.textContent}" follows h${level}`);
  level = next;
}
for (const live of ["[role=status]"]) if (!all(live).length) wrong.push(`nothing is announced: no ${live}`);

// References lead somewhere, and to one place.
const ids = all("[id]").map((element) => element.id);
for (const id of ids) if (ids.filter((other) => other === id).length > 1) wrong.push(`id ${id} twice`);
for (const attribute of ["aria-describedby", "aria-labelledby", "aria-controls"]) {
  for (const element of all(`[${attribute}]`)) {
    if (byId(element.getAttribute(attribute)).includes(null)) wrong.push(`${name(element)}: ${attribute} leads nowhere`);
  }
}
for (const link of all("a[href^='#']")) if (!document.getElementById(link.hash.slice(1))) wrong.push(`${link.hash} leads nowhere`);
for (const element of all("[tabindex]")) if (element.tabIndex > 0) wrong.push(`${name(element)} jumps in the order of Tab`);

// What scrolls can be scrolled without a mouse.
for (const element of all("*")) {
  const { overflowX, overflowY } = getComputedStyle(element);
  const scrolls = (/auto|scroll/.test(overflowX) && element.scrollWidth > element.clientWidth) || (/auto|scroll/.test(overflowY) && element.scrollHeight > element.clientHeight);
  const reachable = element.tabIndex >= 0 || element.querySelector("a, button, input, select, textarea, summary, [tabindex='0']");
  if (scrolls && shown(element) && element !== document.documentElement && element !== document.body && !reachable) wrong.push(`${name(element)} scrolls, but not by keys`);
}

// Contrast: each text against what is behind it (WCAG 2.2, 1.4.3).
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
canvas.canvas.width = canvas.canvas.height = 1;
function paint(colours) {
  canvas.clearRect(0, 0, 1, 1);
  for (const colour of colours) {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
  }
  return [...canvas.getImageData(0, 0, 1, 1).data];
}
function luminance([red, green, blue]) {
  const [r, g, b] = [red, green, blue].map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function behind(element) {
  const layers = [];
  for (let at = element; at; at = at.parentElement) layers.unshift(getComputedStyle(at).backgroundColor);
  return layers;
}
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || !shown(element) || element.closest(".hidden, .skip, noscript, option")) continue;
  const style = getComputedStyle(element), ground = behind(element);
  const [one, other] = [paint([...ground, style.color]), paint(ground)].map(luminance);
  const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
  if (contrast < (large ? 3 : 4.5)) wrong.push(`"${texts.currentNode.data.trim().slice(0, 40)}" in ${name(element)}: contrast ${contrast.toFixed(2)}`);
}
// Targets are large enough for a finger or have room around (WCAG 2.2, 2.5.8).
for (const control of all("button, a.button, select, input[type=text]")) {
  if (shown(control) && control.getBoundingClientRect().height < 24) wrong.push(`${name(control)} is ${control.getBoundingClientRect().height} high`);
}
return [...new Set(wrong)];
