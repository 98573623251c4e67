// The computation, beside the page so that it never freezes: fetches model and runtime once, keeps them, answers pictures.
//
// Takes {id, kind: "load" | "analyse" | "explain", ...} and gives {id, answer} or {id, error}; while it loads, {progress}.

import {
  averaged, cellsOf, combined, disagreement, doubt, indexOfLargest, labelSet, malignancy, onPicture, placement, softmax, verdict,
} from "./model.js";
import { flagsOf, heatLayer, opened, PictureError, pixelsOf, shrunk } from "./pictures.js";

const STORE = "lesion-models"; // large files by their sha256, whichever version of the page they came with
const LAYER_SIDE = 192;

const here = (file) => new URL(file, import.meta.url).href;

let facts = null;
let palette = null;
let runtime = null;
const sessions = [];
let last = null; // the picture that is shown, so that another label's map needs no second pass

// ------------------------------------------------------------------------------------------------ loading

async function load() {
  const started = performance.now();
  facts = await (await fetch(here("model.json"))).json();
  palette = Uint8Array.from(atob(facts.palette), (letter) => letter.charCodeAt(0));
  const large = [facts.runtime.wasm, ...facts.members.map((member) => member.graph)];
  const contents = await fetchAll(large);
  runtime = await import(here(facts.runtime.module));
  runtime.env.wasm.wasmBinary = contents[0];
  runtime.env.wasm.wasmPaths = { mjs: here(facts.runtime.glue) };
  runtime.env.wasm.numThreads = threads();
  runtime.env.logLevel = "error";
  for (const content of contents.slice(1)) {
    const session = await runtime.InferenceSession.create(content, { executionProviders: ["wasm"] });
    // Once on next to nothing, so that the first answer waits for nothing.
    await session.run({ image: new runtime.Tensor("uint8", new Uint8Array(8 * 8 * 3), [8, 8, 3]) });
    sessions.push(session);
  }
  return { threads: runtime.env.wasm.numThreads, seconds: (performance.now() - started) / 1000 };
}

/**
 * Half of the cores, four at most: at every layer the threads wait for the slowest, so one that must share its core with the
 * page, or with anything else that runs there, makes all of them slower than a single one would be.
 */
function threads() {
  if (!self.crossOriginIsolated) return 1;
  return Math.max(1, Math.min(4, Math.floor((navigator.hardwareConcurrency || 1) / 2)));
}

/** Fetches large files, those kept from an earlier visit from the browser's cache, and says how far it is. */
async function fetchAll(files) {
  const store = await self.caches?.open(STORE).catch(() => undefined); // private windows may refuse it
  const total = files.reduce((bytes, file) => bytes + file.bytes, 0);
  let done = 0;
  const progress = (bytes) => {
    done += bytes;
    self.postMessage({ progress: { done, total } });
  };
  const contents = [];
  for (const file of files) contents.push(await fetchOne(file, store, progress));
  await forgetOthers(store, files).catch(() => undefined); // what is left takes room, no more
  return contents;
}

const keyOf = (file) => here(`kept/${file.sha256}`);

async function forgetOthers(store, files) {
  for (const request of (await store?.keys()) ?? []) {
    if (!files.some((file) => request.url === keyOf(file))) await store.delete(request);
  }
}

async function fetchOne(file, store, progress) {
  const kept = await store?.match(keyOf(file)).catch(() => undefined);
  if (kept) {
    const content = await kept.arrayBuffer();
    if ((await sha256(content)) === file.sha256) {
      progress(file.bytes);
      return content;
    }
  }
  const response = await fetch(here(file.file));
  if (!response.ok) throw new Error(`${file.file}: the server answers ${response.status}`);
  const content = new Uint8Array(file.bytes);
  let at = 0;
  for await (const part of parts(response.body)) {
    if (at + part.length > content.length) break;
    content.set(part, at);
    at += part.length;
    progress(part.length);
  }
  if (at !== file.bytes || (await sha256(content)) !== file.sha256) throw new Error(`${file.file}: is not this page's`);
  // Kept if there is room; the page works without.
  await store?.put(keyOf(file), new Response(content)).catch(() => undefined);
  return content.buffer;
}

async function* parts(stream) {
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

async function sha256(content) {
  if (!self.crypto?.subtle) return null; // over plain http from another machine: refused, since nothing could be checked
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// ------------------------------------------------------------------------------------------------ answering

async function analyse({ file, explain = true }) {
  const started = performance.now();
  const bitmap = await opened(file, facts.limits);
  const size = [bitmap.height, bitmap.width];
  const rgb = pixelsOf(bitmap);
  const picture = explain ? shrunk(bitmap, facts.limits.side) : null;
  bitmap.close();
  const outputs = [];
  const resizedBy = new Map(); // members that frame alike share what the first of them has resized
  for (const [m, session] of sessions.entries()) {
    const { framing } = facts.members[m];
    const alike = JSON.stringify(framing);
    const image = resizedBy.get(alike) ?? new runtime.Tensor("uint8", rgb, [...size, 3]);
    const { logits, maps, pooled, resized } = await session.run({ image });
    outputs.push({ logits: Array.from(logits.data), maps, pooled: pooled?.data });
    if (!resizedBy.has(alike) && keepsItsSize(framing, resized.dims)) resizedBy.set(alike, resized);
  }
  const byMember = outputs.map(({ logits }) => softmax(logits));
  const probabilities = combined(facts, byMember);
  if (!probabilities.every(Number.isFinite)) throw new Error("the model's scores are no numbers");
  const answer = {
    size,
    probabilities,
    byMember,
    malignancy: malignancy(facts, probabilities),
    disagreement: disagreement(facts, byMember),
    flags: flagsOf(rgb, size, facts.quality),
    set: labelSet(facts, probabilities),
    verdict: verdict(facts, outputs),
  };
  answer.doubt = doubt(facts, answer);
  answer.abstains = answer.doubt === null ? null : answer.doubt > facts.abstention.limit;
  if (explain) {
    last = { size, outputs, label: indexOfLargest(probabilities) };
    Object.assign(answer, { maps: drawMaps({}), picture });
  }
  return { ...answer, milliseconds: performance.now() - started };
}

/** Whether a picture that was resized for a framing would be left as it is by the same framing. */
function keepsItsSize(framing, [height, width]) {
  const { resized } = placement(framing, [height, width]);
  return resized[0] === height && resized[1] === width;
}

/** Draws the maps of a target, by its place in facts.targets, else of the most probable label: of all members, then each. */
function drawMaps({ target = last.label }) {
  const { size, outputs } = last;
  if (outputs.some(({ maps }) => !maps)) return null;
  const { name, code, labels } = facts.targets[target];
  const scale = Math.min(1, LAYER_SIDE / Math.max(...size));
  const thin = size.map((side) => Math.max(1, Math.round(side * scale)));
  const own = facts.members.map((member, m) => {
    const cells = cellsOf(member, outputs[m].logits, outputs[m].maps, labels);
    return onPicture(cells, placement(member.framing, size), thin);
  });
  const layer = (title, heat) => ({ title, empty: !heat.some((value) => value > 0), bitmap: heatLayer(heat, thin, palette) });
  const layers = [layer("", averaged(facts, own))];
  if (own.length > 1) layers.push(...own.map((heat, m) => layer(facts.members[m].name, heat)));
  return { name, code, layers, size: thin };
}

// ------------------------------------------------------------------------------------------------ messages

const TASKS = { load, analyse, explain: drawMaps };
let turn = Promise.resolve(); // one at a time, in the order in which they came

async function answer({ id, kind, ...request }) {
  try {
    const found = await TASKS[kind](request);
    const layers = (found?.maps ?? found)?.layers ?? [];
    self.postMessage({ id, answer: found }, layers.map(({ bitmap }) => bitmap)); // handed over, not copied
  } catch (error) {
    self.postMessage({ id, error: error instanceof PictureError ? error.message : `Something went wrong (${error.message}).` });
  }
}

self.onmessage = ({ data }) => { turn = turn.then(() => answer(data)); };
