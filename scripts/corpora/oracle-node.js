// What mailparser or postal-mime reads in each mail, as JSON lines.
//   node oracle-node.js mailparser|postal-mime FILE...
'use strict';
const fs = require('fs');
const [, , which, ...files] = process.argv;

const readers = {
    mailparser: async raw => {
        const m = await require('mailparser').simpleParser(raw, { skipTextToHtml: true, skipHtmlToText: true, skipImageLinks: true });
        const flat = list => list.flatMap(a => (a.group ? flat(a.group) : [{ name: a.name || '', email: a.address || '' }]));
        return {
            subject: m.subject || '',
            from: m.from ? flat(m.from.value) : [],
            text: m.text || '',
            html: m.html || '',
            attachments: m.attachments.map(a => ({ name: a.filename || '', type: a.contentType || '' }))
        };
    },
    'postal-mime': async raw => {
        const PostalMime = require('postal-mime');
        const m = await (PostalMime.default || PostalMime).parse(raw);
        return {
            subject: m.subject || '',
            from: m.from ? [{ name: m.from.name || '', email: m.from.address || '' }] : [],
            text: m.text || '',
            html: m.html || '',
            attachments: m.attachments.map(a => ({ name: a.filename || '', type: a.mimeType }))
        };
    }
};

(async () => {
    for (const file of files) {
        let r;
        try {
            r = await Promise.race([readers[which](fs.readFileSync(file)), new Promise((_, no) => setTimeout(() => no(new Error('hangs')), 5000))]);
        } catch (err) {
            r = { error: String(err) };
        }
        r.file = file;
        console.log(JSON.stringify(r));
    }
    process.exit(0);
})();
