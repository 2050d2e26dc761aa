// One use of a provider's client for each base URL that is named; prints what the client gave as a line of JSON each.
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const HELLO = [{ role: "user", content: "Hello, how are you today?" }];
const CHAT = { model: "gpt-4o", messages: HELLO };
const CLAUDE = { model: "claude-sonnet-5", max_tokens: 100, messages: HELLO };

async function all(stream, most = Infinity) {
  const events = [];
  for await (const event of await stream) {
    events.push(event);
    if (events.length >= most) break;
  }
  return events;
}

async function failing(call) {
  try {
    return await call();
  } catch (error) {
    return { type: error.constructor.name, status: error.status, code: error.code ?? null, message: error.message };
  }
}

const USES = {
  chat: (url) => openai(url).chat.completions.create(CHAT),
  chat_stream: (url) => all(openai(url).chat.completions.create({ ...CHAT, stream: true })),
  chat_stream_asking: (url) =>
    all(openai(url).chat.completions.create({ ...CHAT, stream: true, stream_options: { include_usage: true } })),
  chat_break: (url) => all(openai(url).chat.completions.create({ ...CHAT, stream: true }), 3),
  chat_failing: (url) => failing(() => openai(url).chat.completions.create(CHAT)),
  responses: (url) => openai(url).responses.create({ model: "gpt-5", input: "Hello there" }),
  responses_stream: (url) => all(openai(url).responses.create({ model: "gpt-5", input: "Hello there", stream: true })),
  embeddings: (url) => openai(url).embeddings.create({ model: "text-embedding-3-small", input: "Hello there" }),
  claude: (url) => anthropic(url).messages.create(CLAUDE),
  claude_stream: async (url) => (await anthropic(url).messages.stream(CLAUDE).finalMessage()),
  claude_break: (url) => all(anthropic(url).messages.create({ ...CLAUDE, stream: true }), 3),
};

const openai = (baseURL) => new OpenAI({ baseURL, apiKey: "sk-own", maxRetries: 2 });
const anthropic = (baseURL) => new Anthropic({ baseURL, apiKey: "sk-own", maxRetries: 2 });

const [use, ...urls] = process.argv.slice(2);
for (const url of urls) console.log(JSON.stringify(await USES[use](url)));
process.exit(0);
