// The official OpenAI SDK for Node as a team uses it: `node sdk.cjs STEP`, with OPENAI_BASE_URL and OPENAI_API_KEY.
// Prints one line of JSON: what the step got, or the SDK's error.

const OpenAI = require('openai')

const model = 'gemini-3-pro-image-preview'
const photo = (name) => OpenAI.toFile(Buffer.from(process.env[name], 'base64'), `${name}.png`, { type: 'image/png' })
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds))

const steps = {
  generate: (client) => client.images.generate({ model, prompt: 'A cup, from Node', n: 2 }),

  'edit-one': async (client) =>
    client.images.edit({ model, prompt: 'One, from Node', image: await photo('PHOTO_0') }),

  'edit-three': async (client) => {
    const image = await Promise.all(['PHOTO_0', 'PHOTO_1', 'PHOTO_2'].map(photo))
    return client.images.edit({ model, prompt: 'Three, from Node', image })
  },

  models: async (client) => {
    const ids = []
    for await (const one of client.models.list()) ids.push(one.id)
    return { ids, alias: (await client.models.retrieve('nano-banana-pro')).id }
  },

  video: async (client) => {
    const body = { model: 'veo', prompt: 'Steam over a cup', duration: 4 }
    const task = await client.post('/async/videos/generations', { body })
    const deadline = Date.now() + 15_000
    while (Date.now() < deadline) {
      const seen = await client.get(`/tasks/${task.id}`)
      if (seen.status === 'completed' || seen.status === 'failed') return seen
      await sleep(200)
    }
    throw new Error('the video took more than 15 s')
  },

  'wrong-field': (client) => client.images.generate({ model, prompt: 'A cup', n: 0 }),
  'gives-up-early': async () => {
    const hasty = new OpenAI({ timeout: 1000, maxRetries: 5 })
    const image = await photo('PHOTO_0')
    const generated = await hasty.images.generate({ model, prompt: 'Hasty, from Node [fault:delay=2.5]' })
    const edited = await hasty.images.edit({ model, prompt: 'Hasty edit, from Node [fault:delay=2.5]', image })
    return [generated, edited]
  },

  'unknown-outcome': (client) =>
    client.images.generate({ model, prompt: 'Lost, from Node [fault:reset_after_execute]' }),
}

function failure(error) {
  if (!(error instanceof OpenAI.APIError)) throw error
  return { class: error.constructor.name, status: error.status, type: error.type, requestID: error.requestID }
}

const step = steps[process.argv[2]](new OpenAI())
step.catch(failure).then((found) => console.log(JSON.stringify(found)))
