# Sends one mail with Django, whose settings are the recipe in argv[1].
import sys
from django.conf import settings

recipe = {}
exec(open(sys.argv[1]).read(), recipe)
settings.configure(**{k: v for k, v in recipe.items() if k.isupper()})
from django.core.mail import EmailMessage

EmailMessage("Grüße", "Schöne Grüße!\n.\n.. dots\n", "Shop <shop@sandbox.example>",
             ["bob@example.net"], bcc=["eve@example.net"]).send()
