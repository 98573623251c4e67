// The page: takes pictures in, hands them to the worker, shows what comes back. Nothing here sends anything.

import { answerView, csvOf, rowView } from "./views.js";

const find = (id) => document.getElementById(id);
const SECONDS_TO_INSTALL = 3; // after which the page goes on without threads
const megabytes = (count) => Math.round(count / 1e6);

// ------------------------------------------------------------------------------------------------ the worker

/** Asks the worker; requests are answered in the order in which they are made. */
class Model {
  #waiting = new Map();
  #requests = 0;

  constructor(onProgress) {
    // A worker's own file would bring no policy along where the host sends none; made of a blob it has the page's.
    const source = `import ${JSON.stringify(new URL("worker.js", document.baseURI).href)};`;
    this.worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })), { type: "module" });
    this.worker.onmessage = ({ data }) => {
      if (data.progress) return onProgress(data.progress);
      const { resolve, reject } = this.#waiting.get(data.id);
      this.#waiting.delete(data.id);
      return data.error ? reject(new Error(data.error)) : resolve(data.answer);
    };
    this.worker.onerror = () => this.#waiting.forEach(({ reject }) => reject(new Error("The browser cannot run this page.")));
  }

  ask(kind, request = {}) {
    const id = this.#requests += 1;
    this.worker.postMessage({ id, kind, ...request });
    return new Promise((resolve, reject) => { this.#waiting.set(id, { resolve, reject }); });
  }
}

/** Has the page kept for offline use, and reloads it once where the service worker's headers will then permit threads. */
async function keepOffline() {
  try {
    const registered = navigator.serviceWorker.register("service-worker.js");
    const framed = window.parent !== window; // as isolated as the page around it, whatever its own headers say
    if (window.crossOriginIsolated || framed || sessionStorage.getItem("reloaded")) return;
    await registered;
    const waited = new Promise((resolve) => { setTimeout(resolve, SECONDS_TO_INSTALL * 1000); });
    if (!(await Promise.race([navigator.serviceWorker.ready, waited]))) return;
    sessionStorage.setItem("reloaded", "yes");
    window.location.reload();
    await new Promise(() => undefined);
  } catch {
    // Private windows may refuse a service worker: then the page works with a network alone, and in one thread.
  }
}

// ------------------------------------------------------------------------------------------------ pictures in, answers out

let facts = null;
let model = null;
let ready = null;
let chosen = 0; // counts the choices, so that an answer that was overtaken is not shown
let table = null;

function say(text) {
  find("status").textContent = text;
}

function complain(text) {
  find("error").textContent = text;
  find("error").hidden = !text;
}

function show(file) {
  const preview = find("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.hidden = !file;
  find("hint").hidden = Boolean(file);
  find("remove").hidden = !file;
  if (!file) return preview.removeAttribute("src");
  preview.src = URL.createObjectURL(file);
  preview.onerror = () => { preview.hidden = true; find("hint").hidden = false; };
}

/** Answers what was chosen, dropped, pasted or photographed: one picture in full, several as a table. */
function take(files) {
  complain("");
  if (files.length > 1) analyseAll(files);
  else if (files.length === 1) analyse(files[0]);
}

async function analyse(file) {
  const choice = chosen += 1;
  complain("");
  show(file);
  find("answer").replaceChildren();
  say("Analysing …");
  try {
    await ready;
    const answer = await model.ask("analyse", { file });
    if (choice === chosen) showAnswer(file, answer, choice);
  } catch (error) {
    if (choice !== chosen) return;
    say("");
    complain(error.message);
  }
}

function forget() {
  chosen += 1; // an answer that is on its way is no longer wanted
  show(null);
  complain("");
  say("");
  find("answer").replaceChildren();
}

function showAnswer(file, answer, choice) {
  const explain = async (target) => {
    const maps = await model.ask("explain", { target });
    if (choice !== chosen) return;
    showAnswer(file, { ...answer, maps }, choice);
    find("target")?.focus();
  };
  find("answer").replaceChildren(...answerView(facts, answer, explain));
  find("answer").dataset.milliseconds = answer.milliseconds;
  say(`${file.name || "Pasted picture"}: the estimate is ready.`);
  if (window.innerWidth < 700) find("answer").scrollIntoView();
}

async function analyseAll(files) {
  const batch = table = { items: [], cancelled: false };
  try {
    await ready;
  } catch {
    return undefined; // it was said when it failed
  }
  const { limits } = facts;
  if (files.length > limits.files) return complain(`${files.length} files; the limit is ${limits.files}.`);
  find("batch").hidden = find("cancel").hidden = false;
  find("csv").hidden = true;
  find("rows").replaceChildren();
  const progress = () => {
    const done = batch.items.length;
    find("batch-text").textContent = `${done} of ${files.length} analysed${batch.cancelled ? ", then cancelled" : ""}`;
    find("batch-done").value = done / files.length;
  };
  progress();
  for (const file of files) {
    const item = { name: file.name };
    try {
      item.answer = await model.ask("analyse", { file, explain: false });
    } catch (error) {
      item.error = error.message;
    }
    if (table !== batch) return undefined; // another batch has begun
    batch.items.push(item);
    find("rows").append(rowView(facts, item, () => analyse(file)));
    progress();
    if (batch.cancelled) break;
  }
  find("cancel").hidden = true;
  const link = find("csv");
  if (link.href) URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([csvOf(facts, batch.items)], { type: "text/csv" }));
  link.hidden = false;
  return undefined;
}

// ------------------------------------------------------------------------------------------------ the camera

const video = find("camera").querySelector("video");
let stream = null;

/** Offers the camera where there is one. */
async function offerCamera() {
  const devices = await navigator.mediaDevices?.enumerateDevices?.().catch(() => null);
  find("open-camera").hidden = !devices?.some(({ kind }) => kind === "videoinput");
}

async function openCamera() {
  complain("");
  find("open-camera").disabled = true; // a second stream would never be stopped
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1920 } } });
    video.srcObject = stream;
    find("camera").hidden = false;
    find("shoot").focus();
    await video.play();
  } catch {
    closeCamera();
    complain("The camera cannot be used: allow it in the browser, or choose a file.");
  }
}

function closeCamera() {
  const within = find("camera").contains(document.activeElement);
  stream?.getTracks().forEach((track) => track.stop());
  stream = video.srcObject = null;
  find("camera").hidden = true;
  find("open-camera").disabled = false;
  if (within) find("open-camera").focus();
}

function shoot() {
  if (!video.videoWidth) return; // it shows nothing yet
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => {
    closeCamera();
    take([new File([blob], "camera.png", { type: "image/png" })]);
  });
}

// ------------------------------------------------------------------------------------------------ wiring

function listen() {
  find("files").addEventListener("change", ({ target }) => { take([...target.files]); target.value = ""; });
  find("remove").addEventListener("click", forget);
  find("cancel").addEventListener("click", () => { if (table) table.cancelled = true; });
  find("open-camera").addEventListener("click", openCamera);
  find("close-camera").addEventListener("click", closeCamera);
  find("shoot").addEventListener("click", shoot);
  find("camera").addEventListener("keydown", ({ key }) => { if (key === "Escape") closeCamera(); });
  for (const button of document.querySelectorAll("[data-example]")) {
    button.addEventListener("click", async () => {
      const name = button.dataset.example;
      take([new File([await (await fetch(name)).blob()], name.split("/").pop(), { type: "image/jpeg" })]);
    });
  }
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => { event.preventDefault(); take([...event.dataTransfer.files]); });
  document.addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])];
    if (pasted.length) { event.preventDefault(); take(pasted); }
  });
}

function showProgress({ done, total }) {
  find("loaded").value = done / total;
  const part = `${megabytes(done)} of ${megabytes(total)} MB`;
  find("loading-text").textContent = `Loading the model: ${part}, kept in this browser for the next time`;
}

async function start() {
  await keepOffline();
  facts = await (await fetch("model.json")).json();
  model = new Model(showProgress);
  const { threads, seconds } = await model.ask("load");
  find("loading").hidden = true;
  Object.assign(document.documentElement.dataset, { ready: "yes", threads, loadSeconds: seconds });
}

listen();
offerCamera();
ready = start();
ready.catch((error) => {
  find("loading").hidden = true;
  complain(`The model could not be loaded (${error.message}); check the network and load the page again.`);
});
