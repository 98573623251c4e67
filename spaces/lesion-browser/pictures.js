// Pictures: from a file to upright pixels, what is wrong with them, and the colours of a heat map.

/** A mistake that the visitor can mend, in one line. */
export class PictureError extends Error {}

const READABLE = "JPEG, PNG, WebP, GIF, BMP or AVIF";
const STRIP = 1 << 22; // pixels that are read from a canvas at a time
const megabytes = (count) => `${Number((count / 1e6).toPrecision(3))} MB`;

// What a file is by its first bytes, where browsers differ in whether they read it.
const KINDS = [
  ["HEIC", (text) => text.slice(4, 8) === "ftyp" && /^(hei[cmsx]|hev[cm]|mif1|msf1)/.test(text.slice(8, 12))],
  ["TIFF", (text) => text.startsWith("II*\0") || text.startsWith("MM\0*")],
  ["JPEG 2000", (text) => text.slice(4, 8) === "jP  " || text.startsWith("\xff\x4f\xff\x51")],
  ["JPEG XL", (text) => text.startsWith("\xff\x0a") || text.slice(4, 8) === "JXL "],
  ["PDF", (text) => text.startsWith("%PDF")],
];
// What all of them read, and where it can be told that such a file ends early. Some show what there is of it, and an answer to
// half a picture is worth nothing.
const IMAGES = [
  [(text) => text.startsWith("\xff\xd8\xff"), (bytes) => !holds(bytes, [0xff, 0xd9], startOfJpegScan(bytes))],
  [(text) => text.startsWith("\x89PNG"), (bytes) => !holds(bytes, [..."IEND"].map((letter) => letter.charCodeAt(0)), 8)],
  [
    (text) => text.startsWith("RIFF") && text.slice(8, 12) === "WEBP",
    (bytes) => new DataView(bytes.buffer).getUint32(4, true) + 8 > bytes.length,
  ],
  [(text) => text.startsWith("GIF8"), () => false],
  [(text) => text.startsWith("BM"), () => false],
  [(text) => text.slice(4, 12) === "ftypavif" || text.slice(4, 12) === "ftypavis", () => false],
];

/** Whether some bytes stand anywhere behind a place; looked for from the end, where an end marker is. */
function holds(bytes, wanted, behind) {
  for (let at = bytes.lastIndexOf(wanted[0]); at > behind; at = bytes.lastIndexOf(wanted[0], at - 1)) {
    if (wanted.every((byte, i) => bytes[at + i] === byte)) return true;
  }
  return false;
}

/** Where the header of a JPEG ends: behind it, the end marker is not that of a thumbnail. */
function startOfJpegScan(bytes) {
  let at = 2;
  while (bytes[at] === 0xff && bytes[at + 1] !== 0xda) at += 2 + bytes[at + 2] * 256 + bytes[at + 3];
  return at;
}

/** Decodes a file to an upright bitmap of 8 bits per channel, its colours as stored; what cannot be read is one line. */
export async function opened(file, limits) {
  const name = file.name || "the picture";
  if (file.size === 0) throw new PictureError(`${name}: the file is empty; choose another one.`);
  if (file.size > limits.bytes) {
    throw new PictureError(`${name}: ${megabytes(file.size)} is over the limit of ${megabytes(limits.bytes)}.`);
  }
  const bytes = new Uint8Array(await file.arrayBuffer());
  const start = String.fromCharCode(...bytes.subarray(0, 16));
  const [known, endsEarly] = IMAGES.find(([is]) => is(start)) ?? [];
  let bitmap;
  try {
    if (endsEarly?.(bytes)) throw new Error("it ends early");
    // Upright by its EXIF orientation, and no colour changed: that is what the networks were trained on.
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    const kind = KINDS.find(([, is]) => is(start))?.[0];
    if (kind) throw new PictureError(`${name}: is a ${kind} file, which this browser does not read; save it as JPEG or PNG.`);
    if (known) throw new PictureError(`${name}: the image is damaged; choose another one.`);
    throw new PictureError(`${name}: not an image that can be read; give ${READABLE}.`);
  }
  const { width, height } = bitmap;
  if (width * height <= limits.pixels) return bitmap;
  bitmap.close();
  throw new PictureError(`${name}: ${width} x ${height} pixels are over the limit of ${limits.pixels / 1e6} million.`);
}

/** The pixels of a bitmap over white, as the graphs take them: height x width x 3 bytes. */
export function pixelsOf(bitmap) {
  const { width, height } = bitmap;
  const rgb = new Uint8Array(height * width * 3);
  // In strips: a canvas of a whole photograph is more than phones allow, and two more copies of it in memory.
  const rows = Math.max(1, Math.min(height, Math.floor(STRIP / width)));
  const context = new OffscreenCanvas(width, rows).getContext("2d", { willReadFrequently: true });
  for (let top = 0, to = 0; top < height; top += rows) {
    context.fillStyle = "#fff"; // behind transparent pixels
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, -top);
    const { data } = context.getImageData(0, 0, width, Math.min(rows, height - top));
    for (let from = 0; from < data.length; from += 4, to += 3) {
      rgb[to] = data[from];
      rgb[to + 1] = data[from + 1];
      rgb[to + 2] = data[from + 2];
    }
  }
  return rgb;
}

/** A copy over white for the screen, its longer side at most `side`. */
export function shrunk(bitmap, side) {
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((length) => Math.max(1, Math.round(length * scale)));
  const small = new OffscreenCanvas(width, height);
  const context = small.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  return small.transferToImageBitmap();
}

/** Draws a map of values in 0..1 as a layer to lay over its picture: the warmer a place, the less of the picture shows. */
export function heatLayer(heat, [height, width], palette) {
  const canvas = new OffscreenCanvas(width, height);
  const layer = new ImageData(width, height);
  heat.forEach((value, i) => {
    const colour = 3 * Math.floor(value * 255);
    for (let channel = 0; channel < 3; channel += 1) layer.data[4 * i + channel] = palette[colour + channel];
    layer.data[4 * i + 3] = Math.round(Math.sqrt(value) * 255);
  });
  canvas.getContext("2d").putImageData(layer, 0, 0);
  return canvas.transferToImageBitmap();
}

// ------------------------------------------------------------------------------------------------ quality

/** The flags that a picture raises, by the measures and limits of lesion_hub.data.quality. */
export function flagsOf(rgb, [height, width], limits) {
  const short = Math.min(height, width);
  const small = reduced(rgb, height, width, Math.max(1, Math.floor(short / limits.thumbnail)));
  const light = new Float64Array(small.height * small.width);
  let skin = 0;
  for (let i = 0; i < light.length; i += 1) {
    const red = small.rgb[3 * i];
    const green = small.rgb[3 * i + 1];
    const blue = small.rgb[3 * i + 2];
    light[i] = 0.299 * red + 0.587 * green + 0.114 * blue;
    const spread = red - Math.min(green, blue);
    const leads = red >= green && red >= 0.9 * blue && red > 20;
    if (leads && spread > 0.04 * red && spread < 0.92 * red) skin += 1;
  }
  const { mean: brightness, variance } = moments(light);
  const contrast = Math.sqrt(variance);
  const sharpness = sharpnessOf(light, small.height, small.width, variance);
  const raised = {
    tiny: short < limits.tiny_side,
    low_contrast: contrast < limits.low_contrast_below,
    blurred: contrast >= limits.low_contrast_below && sharpness < limits.blurred_below,
    dark: brightness < limits.dark_below,
    bright: brightness > limits.bright_above,
    not_skin_like: skin / light.length < limits.skin_below || sharpness > limits.noisy_above,
  };
  return Object.keys(limits.flags).filter((flag) => raised[flag]);
}

/** Averages blocks of `factor` x `factor` pixels; those at the right and lower edge may be smaller. */
function reduced(rgb, height, width, factor) {
  const rows = Math.ceil(height / factor);
  const columns = Math.ceil(width / factor);
  const small = new Uint8Array(rows * columns * 3);
  for (let row = 0; row < rows; row += 1) {
    const bottom = Math.min((row + 1) * factor, height);
    for (let column = 0; column < columns; column += 1) {
      const right = Math.min((column + 1) * factor, width);
      const count = (bottom - row * factor) * (right - column * factor);
      for (let channel = 0; channel < 3; channel += 1) {
        let total = 0;
        for (let y = row * factor; y < bottom; y += 1) {
          for (let x = column * factor; x < right; x += 1) total += rgb[3 * (y * width + x) + channel];
        }
        small[3 * (row * columns + column) + channel] = Math.floor(total / count + 0.5);
      }
    }
  }
  return { rgb: small, height: rows, width: columns };
}

function moments(values) {
  const mean = values.reduce((total, value) => total + value, 0) / values.length;
  return { mean, variance: values.reduce((total, value) => total + (value - mean) ** 2, 0) / values.length };
}

/** The variance of the Laplacian as a share of that of the luminance: a blur takes the first and leaves the second. */
function sharpnessOf(light, height, width, variance) {
  if (Math.min(height, width) < 3) return 0;
  const edges = new Float64Array((height - 2) * (width - 2));
  for (let y = 1, i = 0; y < height - 1; y += 1) {
    for (let x = 1; x < width - 1; x += 1, i += 1) {
      const at = y * width + x;
      edges[i] = light[at - width] + light[at + width] + light[at - 1] + light[at + 1] - 4 * light[at];
    }
  }
  return moments(edges).variance / (variance + 1e-6);
}
