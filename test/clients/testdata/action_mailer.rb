# Sends one mail with Action Mailer, set up by the recipe in ARGV[0]: as an
# environment of Rails, or as gitlab.rb.
require "action_mailer"

Config = Struct.new(:action_mailer)
config = Config.new(ActionMailer::Base)
gitlab_rails = {}
eval(File.read(ARGV[0]))
if gitlab_rails["smtp_enable"]
  # What GitLab's initializer does with them.
  ActionMailer::Base.delivery_method = :smtp
  ActionMailer::Base.smtp_settings = {
    address: gitlab_rails["smtp_address"], port: gitlab_rails["smtp_port"],
    enable_starttls_auto: gitlab_rails["smtp_enable_starttls_auto"], tls: gitlab_rails["smtp_tls"]
  }
end

class Letter < ActionMailer::Base
  def one
    mail(from: "Shop <shop@sandbox.example>", to: "bob@example.net", bcc: "eve@example.net",
         subject: "Grüße", body: "Schöne Grüße!\n.\n.. dots\n", content_type: "text/plain; charset=utf-8")
  end
end
Letter.one.deliver_now
