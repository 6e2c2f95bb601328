# What mikel/mail reads in each mail, as JSON lines.
#
#     ruby -I CHECKOUT/lib oracle-ruby.rb FILE...
require "json"
require "mail"
require "timeout"

def clean(s)
  s.to_s.dup.force_encoding("UTF-8").scrub("\uFFFD")
end

# The library has no joined body of its own; the rule is that of oracle-python.
def walk(part, r)
  return part.parts.each { |p| walk(p, r) } if part.multipart?

  type = part.mime_type.to_s.downcase
  type = "text/plain" if type.empty?
  if part.attachment? || !%w[text/plain text/html].include?(type)
    r[:attachments] << { name: clean(part.filename), type: type }
  else
    (type == "text/html" ? r[:html] : r[:text]) << clean(part.decoded)
  end
end

def read(path)
  m = Mail.new(File.binread(path))
  r = { subject: clean(m.subject), from: [], text: [], html: [], attachments: [] }
  from = m[:from]
  from.addrs.each { |a| r[:from] << { name: clean(a.display_name), email: clean(a.address) } } if from.respond_to?(:addrs)
  walk(m, r)
  r.merge(text: r[:text].join("\n"), html: r[:html].join("\n"))
end

ARGV.each do |path|
  r = begin
    Timeout.timeout(5) { read(path) }
  rescue StandardError => e
    { error: e.class.name }
  end
  puts JSON.generate(r.merge(file: path))
end
