// Does the official Node SDK work unchanged, with only baseURL and apiKey set?
//
// The published package has no suite of its own; these are the calls of its `videos` resource, by
// node:test, against a gateway whose videos are finished as soon as they are asked for.

import assert from "node:assert/strict";
import { createReadStream, readFileSync } from "node:fs";
import { test } from "node:test";

import OpenAI, { toFile } from "openai";

const { SDK_BASE_URL, SDK_API_KEY, SDK_POOR_KEY, SDK_IMAGE } = process.env;
const KEYS = [
  "id", "object", "model", "status", "progress", "created_at", "completed_at", "expires_at",
  "prompt", "size", "seconds", "remixed_from_video_id", "error",
];

// The simulated upstream lets it wait in a queue, so that there is an end to wait for.
const BRIEF = "a heron [[queue 0.2]]";
const LOOKS = 300;
const LOOK_MILLISECONDS = 100;

function client(options = {}) {
  return new OpenAI({ baseURL: SDK_BASE_URL, apiKey: SDK_API_KEY, ...options });
}

// A client, and every request that it has sent: what is sent again by itself shows here.
function watched(options = {}) {
  const sent = [];
  const fetchAndNote = (url, init) => {
    sent.push({ url: String(url), method: init.method, headers: new Headers(init.headers) });
    return fetch(url, init);
  };
  return { sdk: client({ fetch: fetchAndNote, ...options }), sent };
}

// The Node SDK has no helper that polls.
async function finished(asked) {
  const { id } = await client().videos.create(asked);
  for (let look = 0; look < LOOKS; look += 1) {
    const video = await client().videos.retrieve(id);
    if (["completed", "failed"].includes(video.status)) return video;
    await new Promise((resolve) => setTimeout(resolve, LOOK_MILLISECONDS));
  }
  throw new Error(`${id} does not end`);
}

// One video for all tests that only read it.
const shared = await finished({ prompt: BRIEF, seconds: "4", size: "720x1280" });

async function contentOf(videoId, ...rest) {
  const answer = await client().videos.downloadContent(videoId, ...rest);
  return { answer, bytes: Buffer.from(await answer.arrayBuffer()) };
}

async function refused(promise) {
  const error = await promise.then(() => null, (reason) => reason);
  assert.ok(error instanceof OpenAI.APIError, `expected a refusal, got ${error}`);
  return error;
}

test("a prompt alone makes a video of the defaults, with all of OpenAI's keys", async () => {
  const video = await client().videos.create({ prompt: "a heron" });
  for (const key of KEYS) assert.ok(key in video, `no ${key}`);
  assert.deepEqual(
    [video.object, video.model, video.seconds, video.size],
    ["video", "sora-2", "4", "720x1280"],
  );
});

test("every parameter of create arrives", async () => {
  const asked = { prompt: "ein Reiher 鹭 \"1\"", model: "sora-2-pro", seconds: "8", size: "1792x1024" };
  const video = await client().videos.create(asked);
  for (const [name, value] of Object.entries(asked)) assert.equal(video[name], value);
});

test("an image that is streamed from a file, in chunks and without a length, is taken", async () => {
  const { sdk, sent } = watched();
  const video = await sdk.videos.create({
    prompt: "a wave",
    input_reference: createReadStream(SDK_IMAGE),
  });
  assert.equal(video.object, "video");
  assert.equal(sent[0].headers.get("content-length"), null);
});

test("an image made by toFile is taken, typed or not", async () => {
  const bytes = readFileSync(SDK_IMAGE);
  for (const type of [undefined, "image/png"]) {
    const image = await toFile(bytes, "reference.png", type && { type });
    const video = await client().videos.create({ prompt: "a wave", input_reference: image });
    assert.equal(video.object, "video");
  }
});

test("bytes that are no image are refused, naming the parameter", async () => {
  const text = await toFile(Buffer.from("Example data"), "reference.png", { type: "image/png" });
  const error = await refused(
    client().videos.create({ prompt: "a wave", input_reference: text }),
  );
  assert.deepEqual([error.status, error.param], [400, "input_reference"]);
});

test("a video that was created can be retrieved", async () => {
  const video = await client().videos.retrieve(shared.id);
  assert.deepEqual(
    [video.id, video.status, video.progress, video.error],
    [shared.id, "completed", 100, null],
  );
  assert.ok(video.completed_at >= video.created_at);
});

test("a raw response carries the request id", async () => {
  const { data, response, request_id: requestId } = await client()
    .videos.retrieve(shared.id).withResponse();
  assert.equal(data.id, shared.id);
  assert.equal(response.headers.get("x-request-id"), requestId);
  assert.ok(requestId);
});

test("pages of one follow each other, in both orders, without a gap", async () => {
  for (const prompt of ["one", "two"]) await client().videos.create({ prompt });
  const newest = [];
  for await (const video of client().videos.list({ limit: 1 })) {
    newest.push(video);
    if (newest.length === 2) break;
  }
  assert.deepEqual(newest.map((video) => video.prompt), ["two", "one"]);
  const [oldest, next] = (await client().videos.list({ limit: 2, order: "asc" })).data;
  const after = await client().videos.list({ limit: 1, order: "asc", after: oldest.id });
  assert.deepEqual(after.data.map((video) => video.id), [next.id]);
  assert.equal(after.has_more, true);
});

test("a page after the last is empty, and so is one after an unknown id", async () => {
  assert.deepEqual((await client().videos.list({ after: "video_unknown" })).data, []);
  assert.deepEqual((await client().videos.list({ limit: 0 })).data, []);
});

test("a deleted video is gone for every verb", async () => {
  const { id } = await finished({ prompt: BRIEF });
  assert.deepEqual(
    { ...(await client().videos.delete(id)) },
    { id, object: "video.deleted", deleted: true },
  );
  for (const verb of ["retrieve", "delete", "downloadContent"]) {
    const error = await refused(client().videos[verb](id));
    assert.ok(error instanceof OpenAI.NotFoundError, verb);
  }
  const again = await refused(client().videos.remix(id, { prompt: "at dusk" }));
  assert.ok(again instanceof OpenAI.NotFoundError);
});

test("a download is the whole MP4, as long as is said", async () => {
  const { answer, bytes } = await contentOf(shared.id);
  assert.equal(answer.headers.get("content-type"), "video/mp4");
  assert.equal(Number(answer.headers.get("content-length")), bytes.length);
  assert.equal(bytes.subarray(4, 8).toString(), "ftyp");
});

test("a range of a download is a 206 with just those bytes", async () => {
  const whole = (await contentOf(shared.id)).bytes;
  const headers = { Range: "bytes=100-299" };
  const { answer, bytes } = await contentOf(shared.id, { variant: "video" }, { headers });
  assert.equal(answer.status, 206);
  assert.equal(answer.headers.get("content-range"), `bytes 100-299/${whole.length}`);
  assert.deepEqual(bytes, whole.subarray(100, 300));
});

test("thumbnail and spritesheet are images", async () => {
  const thumbnail = (await contentOf(shared.id, { variant: "thumbnail" })).bytes;
  assert.equal(thumbnail.subarray(8, 12).toString(), "WEBP");
  const spritesheet = (await contentOf(shared.id, { variant: "spritesheet" })).bytes;
  assert.equal(spritesheet.subarray(0, 2).toString("hex"), "ffd8");
});

test("a remix names its source and is made like it", async () => {
  const remixed = await client().videos.remix(shared.id, { prompt: "at dusk" });
  assert.notEqual(remixed.id, shared.id);
  assert.deepEqual(
    [remixed.remixed_from_video_id, remixed.prompt, remixed.seconds, remixed.size],
    [shared.id, "at dusk", "4", "720x1280"],
  );
  assert.equal((await client().videos.retrieve(remixed.id)).remixed_from_video_id, shared.id);
});

test("an edit of a video by its id is made like it", async () => {
  const edited = await client().videos.edit({ prompt: "in snow", video: { id: shared.id } });
  assert.deepEqual([edited.prompt, edited.seconds, edited.size], ["in snow", "4", "720x1280"]);
});

test("an extension tells the stitched seconds", async () => {
  const video = { id: shared.id };
  const longer = await client().videos.extend({ prompt: "it flies", seconds: "8", video });
  assert.deepEqual([longer.prompt, longer.seconds], ["it flies", "12"]);
});

test("a character is made from a video file and can be retrieved", async () => {
  const video = await toFile((await contentOf(shared.id)).bytes, "heron.mp4", { type: "video/mp4" });
  const made = await client().videos.createCharacter({ name: "Heron", video });
  assert.equal(made.name, "Heron");
  assert.ok(Number.isInteger(made.created_at));
  assert.deepEqual({ ...(await client().videos.getCharacter(made.id)) }, { ...made });
});

test("an unknown id, character or path is a 404", async () => {
  for (const ask of [
    (sdk) => sdk.videos.retrieve("video_unknown"),
    (sdk) => sdk.videos.getCharacter("char_unknown"),
    (sdk) => sdk.get("/videos/video_unknown/nothing"),
    (sdk) => sdk.get("/nothing"),
  ]) assert.ok((await refused(ask(client()))) instanceof OpenAI.NotFoundError, String(ask));
});

test("a wrong value is refused with its parameter, its code and a request id, once", async () => {
  const { sdk, sent } = watched();
  const error = await refused(sdk.videos.create({ prompt: "a heron", seconds: "5" }));
  assert.ok(error instanceof OpenAI.BadRequestError);
  assert.deepEqual(
    [error.status, error.code, error.param, error.type],
    [400, "invalid_value", "seconds", "invalid_request_error"],
  );
  assert.match(error.message, /Supported values are: '4', '8', and '12'/);
  assert.match(error.requestID, /^req_/);
  assert.equal(sent.length, 1);
});

test("a wrong key is refused", async () => {
  const error = await refused(client({ apiKey: "sk-of-another-place" }).videos.list());
  assert.ok(error instanceof OpenAI.AuthenticationError);
  assert.equal(error.code, "invalid_api_key");
});

test("what does not fit the budget is refused, and not sent again", async () => {
  const { sdk, sent } = watched({ apiKey: SDK_POOR_KEY });
  const error = await refused(sdk.videos.create({ prompt: "a heron", seconds: "8" }));
  assert.ok(error instanceof OpenAI.RateLimitError);
  assert.deepEqual([error.status, error.code], [429, "insufficient_quota"]);
  assert.equal(error.headers.get("x-should-retry"), "false");
  assert.equal(sent.length, 1);
});

test("a POST whose outcome is not known is not sent again", async () => {
  const { sdk, sent } = watched();
  const error = await refused(sdk.videos.create({ prompt: "a heron [[500-executed]]" }));
  assert.ok(error instanceof OpenAI.InternalServerError);
  assert.equal(error.code, "outcome_unknown");
  assert.equal(sent.length, 1);
});
