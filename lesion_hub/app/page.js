// The page's own script: choosing pictures, sending them, the slider and the choice of map. It keeps pictures in the browser and
// hands them to the server only when somebody presses a button.
window.lesionHub = (() => {
  "use strict";
  const limits = window.lesionLimits;
  const megabytes = (count) => `${Number((count / 1e6).toPrecision(3))} MB`;
  let lesion = null;
  let picking = null;  // an example on its way: who is quick presses Analyse before it is there
  let files = [];
  let stream = null;
  let cancelled = false;

  const root = () => new URL((window.gradio_config && window.gradio_config.root) || window.location.href);
  const say = (id, text) => { const place = document.getElementById(id); if (place) place.textContent = text; };

  function show(file) {
    const picker = document.querySelector('[data-drop="lesion"]');
    const preview = picker.querySelector(".lh-preview");
    if (preview.src) URL.revokeObjectURL(preview.src);
    preview.hidden = !file;
    picker.querySelector(".lh-hint").hidden = Boolean(file);
    picker.querySelector("[data-clear]").hidden = !file;
    if (!file) { preview.removeAttribute("src"); return; }
    preview.src = URL.createObjectURL(file);
    preview.onerror = () => { preview.hidden = true; picker.querySelector(".lh-hint").hidden = false; };
  }

  function pick(file) {
    if (file && file.size > limits.bytes) {
      lesion = null;
      show(null);
      say("lesion-status", `This file has ${megabytes(file.size)}; the limit is ${megabytes(limits.bytes)}.`);
      return;
    }
    lesion = file || null;
    show(lesion);
    say("lesion-status", lesion ? lesion.name || "pasted image" : "");
  }

  function pickMany(chosen) {
    const total = chosen.reduce((sum, file) => sum + file.size, 0);
    const large = chosen.find((file) => file.size > limits.bytes);
    files = [];
    if (chosen.length > limits.files) say("batch-status", `${chosen.length} files; the limit is ${limits.files}.`);
    else if (large) say("batch-status", `${large.name} has ${megabytes(large.size)}; the limit is ${megabytes(limits.bytes)}.`);
    else if (total > limits.batch) say("batch-status", `${megabytes(total)} in all; the limit is ${megabytes(limits.batch)}.`);
    else { files = chosen; say("batch-status", `${files.length} files, ${megabytes(total)}.`); }
  }

  async function send(file) {
    const form = new FormData();
    form.append("files", file, file.name || "pasted.png");
    const base = root().href.replace(/[?#].*$/, "").replace(/\/$/, "");
    const response = await fetch(`${base}/gradio_api/upload`, { method: "POST", body: form });
    if (!response.ok) throw new Error(await response.text());
    const [path] = await response.json();
    return { path, orig_name: file.name || "pasted.png", meta: { _type: "gradio.FileData" } };
  }

  // The values of an event with the chosen picture in the place of the first one.
  async function withLesion(values) {
    await picking;
    if (!lesion) return [null, ...values.slice(1)];
    try {
      return [await send(lesion), ...values.slice(1)];
    } catch (error) {
      say("lesion-status", String(error.message));
      return [null, ...values.slice(1)];
    }
  }

  // For those who do not see the results appear: a word, and on a narrow screen the way there.
  function ready() {
    const results = document.getElementById("lesion-bars");
    if (!results || !results.querySelector("h2")) return;
    const refused = results.querySelector(".lh-held-back") !== null;
    say("lesion-status", refused ? "The picture is out of scope; the reason stands beside it." : "The estimate is ready.");
    if (window.innerWidth < 700) (refused ? document.getElementById("lesion-warnings") : results).scrollIntoView();
  }

  async function withFiles(values) {
    const sent = [];
    cancelled = false;
    try {
      for (const file of files) {
        if (cancelled) { say("batch-status", "Cancelled while the files were being sent."); return [[], ...values.slice(1)]; }
        say("batch-status", `Sending ${sent.length + 1} of ${files.length} files …`);
        sent.push(await send(file));
      }
      say("batch-status", `${files.length} files.`);
    } catch (error) {
      say("batch-status", String(error.message));
    }
    return [sent, ...values.slice(1)];
  }

  async function openCamera(panel) {
    const video = panel.querySelector("video");
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1920 } } });
      video.srcObject = stream;
      panel.hidden = false;
      await video.play();
    } catch (error) {
      say("lesion-status", "The camera cannot be used: allow it in the browser, or choose a file.");
    }
  }

  function closeCamera(panel) {
    if (stream) stream.getTracks().forEach((track) => track.stop());
    stream = null;
    panel.hidden = true;
  }

  function shoot(panel) {
    const video = panel.querySelector("video");
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => { pick(new File([blob], "camera.jpg", { type: "image/jpeg" })); closeCamera(panel); }, "image/jpeg", 0.95);
  }

  async function pickExample(button) {
    try {
      const blob = await (await fetch(button.querySelector("img").src)).blob();
      pick(new File([blob], `example_${button.dataset.example}.jpg`, { type: blob.type }));
    } catch (error) {
      say("lesion-status", "The example cannot be read; choose another picture.");
    }
  }

  function chooseMap(select) {
    const section = select.closest(".lh-maps");
    section.querySelectorAll(".lh-heat").forEach((layer) => {
      layer.hidden = layer.dataset.member !== select.value;
      if (!layer.hidden) section.querySelector(".lh-empty").hidden = !layer.dataset.empty;
    });
  }

  function openTab(name) {
    const tab = [...document.querySelectorAll('button[role="tab"]')].find((button) => button.textContent.trim() === name);
    if (tab) tab.click();
  }

  document.addEventListener("click", (event) => {
    const on = (selector) => event.target.closest && event.target.closest(selector);
    const camera = on("[data-camera]");
    const panel = camera && camera.closest(".lh-picker").querySelector(".lh-camera");
    if (camera) ({ open: openCamera, close: closeCamera, shoot })[camera.dataset.camera](panel);
    else if (on("#batch-cancel")) cancelled = true;
    else if (on("[data-clear]")) pick(null);
    else if (on(".lh-example")) picking = pickExample(on(".lh-example"));
    else if (on("[data-tab]")) { event.preventDefault(); openTab(on("[data-tab]").dataset.tab); }
  });
  document.addEventListener("change", (event) => {
    if (event.target.id === "lesion-file") { pick(event.target.files[0]); event.target.value = ""; }
    else if (event.target.id === "batch-input") pickMany([...event.target.files]);
    else if (event.target.id === "lesion-member") chooseMap(event.target);
  });
  document.addEventListener("input", (event) => {
    if (event.target.id === "lesion-opacity") event.target.closest(".lh-maps").style.setProperty("--heat", event.target.value / 100);
  });
  const zone = (event) => event.target.closest && event.target.closest("[data-drop]");
  document.addEventListener("dragover", (event) => { if (zone(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    const place = zone(event);
    if (!place) return;
    event.preventDefault();
    const dropped = [...event.dataTransfer.files];
    if (place.dataset.drop === "batch") pickMany(dropped);
    else pick(dropped[0]);
  });
  document.addEventListener("paste", (event) => {
    const pasted = [...((event.clipboardData && event.clipboardData.files) || [])].find((file) => file.type.startsWith("image/"));
    if (pasted) { event.preventDefault(); pick(pasted); }
  });

  return { withLesion, withFiles, ready };
})();
