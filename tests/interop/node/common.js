// The common part of the scripts here: a connection to the broker of the command line, and waiting with a deadline.
'use strict';

const {strict: assert} = require('node:assert');
const {once} = require('node:events');
const amqp = require('amqplib');

const LIMIT_MS = 10_000;

/** Runs `script(connection)`; what it leaves open or unhandled fails the process. */
async function run(script) {
  const overdue = setTimeout(() => fail(new Error(`not over after ${2 * LIMIT_MS} ms`)), 2 * LIMIT_MS);
  const connection = await connect();
  await script(connection);
  await connection.close();
  clearTimeout(overdue);
}

function connect() {
  return amqp.connect(process.argv[2], {timeout: LIMIT_MS});
}

/** A name no other run on the same broker uses. */
function unique(name) {
  return `interop.node.${name}.${process.pid}`;
}

/** What `emitter` emits next as `event`, as a list of arguments. */
function next(emitter, event) {
  return once(emitter, event, {signal: AbortSignal.timeout(LIMIT_MS)});
}

/** A consumer whose messages are read with `await messages.next()`. */
async function consume(channel, queue, options) {
  const waiting = [];
  const arrived = [];
  const {consumerTag} = await channel.consume(
    queue,
    (message) => {
      const taker = waiting.shift();
      if (taker) taker(message);
      else arrived.push(message);
    },
    options,
  );
  const take = () =>
    new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`no message from ${queue} after ${LIMIT_MS} ms`)), LIMIT_MS);
      waiting.push((message) => {
        clearTimeout(late);
        resolve(message);
      });
    });
  return {consumerTag, next: async () => (arrived.length > 0 ? arrived.shift() : take())};
}

/** The bodies of the next `count` messages. */
async function bodies(messages, count) {
  const texts = [];
  while (texts.length < count) texts.push((await messages.next()).content.toString());
  return texts;
}

/** The code of the channel error that `action` causes. */
async function closedWith(channel, action) {
  const closed = next(channel, 'error').catch((error) => [error]);
  await Promise.resolve(action()).catch(() => {});
  const [error] = await closed;
  return error.code;
}

function fail(error) {
  console.error(error);
  process.exit(1);
}

process.on('unhandledRejection', fail);

module.exports = {LIMIT_MS, assert, bodies, closedWith, connect, consume, next, run, unique};
