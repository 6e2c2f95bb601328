// Runs mailparser's own test suite with its parser wrapped, and writes every
// mail that the suite parses to a directory, so that inline mails count too.
//   node harvest-mailparser.js PATH/OF/mailparser OUT
'use strict';
const fs = require('fs');
const path = require('path');
const Module = require('module');
const [, , suite, out] = process.argv;
fs.mkdirSync(out, { recursive: true });

const real = require('mailparser');
let count = 0;
let current = '';
const save = data => {
    const name = current.replace(/[^A-Za-z0-9]+/g, '-').toLowerCase().slice(0, 60);
    fs.writeFileSync(path.join(out, String(++count).padStart(3, '0') + '-' + name + '.eml'), data);
};

class MailParser extends real.MailParser {
    constructor(...args) {
        super(...args);
        this.chunks = [];
        this.title = current;
    }
    write(chunk, enc, ...rest) {
        if (chunk) this.chunks.push(Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk, typeof enc === 'string' ? enc : 'utf8'));
        return super.write(chunk, enc, ...rest);
    }
    end(chunk, ...rest) {
        if (chunk && typeof chunk !== 'function') this.chunks.push(Buffer.from(chunk));
        current = this.title;
        save(Buffer.concat(this.chunks));
        return super.end(chunk, ...rest);
    }
}
const simpleParser = (input, ...rest) => {
    if (Buffer.isBuffer(input) || typeof input === 'string') save(input);
    return real.simpleParser(input, ...rest);
};
const wrapped = Object.assign({}, real, { MailParser, simpleParser });

const load = Module._load;
Module._load = function (request, parent, ...rest) {
    if (/^\.\.(\/|$)|lib\/(mail-parser|simple-parser)/.test(request) && parent && parent.filename.includes('/test/')) {
        return /mail-parser/.test(request) ? MailParser : /simple-parser/.test(request) ? simpleParser : wrapped;
    }
    return load.call(this, request, parent, ...rest);
};
process.on('uncaughtException', () => {});

const run = (title, fn) =>
    new Promise(done => {
        current = title;
        const test = new Proxy({ done }, { get: (t, k) => (k === 'done' ? done : () => true) });
        setTimeout(done, 1000);
        try {
            fn(test);
        } catch (err) {
            done();
        }
    });

(async () => {
    const dir = path.join(suite, 'test');
    for (const f of fs.readdirSync(path.join(dir, 'fixtures'))) {
        if (f.endsWith('.eml')) fs.copyFileSync(path.join(dir, 'fixtures', f), path.join(out, 'fixture-' + f));
    }
    for (const f of fs.readdirSync(dir)) {
        if (!f.endsWith('-test.js')) continue;
        const walk = async (group, title) => {
            for (const key of Object.keys(group)) {
                if (typeof group[key] === 'function') await run(title + key, group[key]);
                else if (group[key]) await walk(group[key], title);
            }
        };
        try {
            await walk(require(path.resolve(dir, f)), f.replace('-test.js', '-'));
        } catch (err) {
            console.error(f, err.message);
        }
    }
    process.exit(0);
})();
