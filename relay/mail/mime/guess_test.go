package mime

import (
	"testing"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
)

func TestGuessUndeclaredCharset(t *testing.T) {
	const (
		russian  = "Здравствуйте! Ваш заказ принят и будет доставлен завтра. Спасибо за покупку в нашем магазине."
		german   = "Schöne Grüße aus München, die Rechnung über 20 € liegt bei. Für Fragen stehen wir zur Verfügung."
		french   = "Votre commande a été expédiée. Elle sera livrée à l'adresse indiquée, merci de votre fidélité."
		jp       = "お客様のご注文を承りました。発送が完了しましたらメールでお知らせいたします。"
		cn       = "您好，您的订单已经发货，请注意查收。谢谢您对我们的支持，如有问题请联系客服。"
		tw       = "您好，您的訂單已經出貨，請注意查收。謝謝您對我們的支持，如有問題請聯絡客服。"
		kr       = "안녕하세요. 주문하신 상품이 발송되었습니다. 이용해 주셔서 감사합니다."
		greek    = "Η παραγγελία σας έχει αποσταλεί. Σας ευχαριστούμε πολύ για την προτίμησή σας."
		hebrew   = "שלום, ההזמנה שלך נשלחה. תודה רבה על הקנייה באתר שלנו."
		arabic   = "مرحبا، تم شحن طلبك. شكرا جزيلا لك على التسوق معنا."
		thai     = "สวัสดีครับ คำสั่งซื้อของคุณถูกจัดส่งแล้ว ขอบคุณมากครับ"
		brazil   = "Formação concluída: sua inscrição no verão não será cobrada até amanhã."
		mixedRus = "Order 12345: Заказ отправлен. Tracking: RA123456789RU. С уважением, Team"
	)
	for _, c := range []struct {
		name string
		enc  encoding.Encoding
		text string
	}{
		{"windows-1251", charmap.Windows1251, russian},
		{"windows-1251 in English", charmap.Windows1251, mixedRus},
		{"koi8-r", charmap.KOI8R, russian},
		{"koi8-r in English", charmap.KOI8R, mixedRus},
		{"windows-1252 German", charmap.Windows1252, german},
		{"windows-1252 French", charmap.Windows1252, french},
		{"windows-1252 Portuguese", charmap.Windows1252, brazil},
		{"windows-1252 one letter", charmap.Windows1252, "Gr\u00fc\u00dfe"},
		{"windows-1252 one euro", charmap.Windows1252, "20 €"},
		{"shift_jis", japanese.ShiftJIS, jp},
		{"euc-jp", japanese.EUCJP, jp},
		{"iso-2022-jp", japanese.ISO2022JP, jp},
		{"gb18030", simplifiedchinese.GB18030, cn},
		{"big5", traditionalchinese.Big5, tw},
		{"euc-kr", korean.EUCKR, kr},
		{"windows-1253", charmap.Windows1253, greek},
		{"windows-1255", charmap.Windows1255, hebrew},
		{"windows-1256", charmap.Windows1256, arabic},
		{"windows-874", charmap.Windows874, thai},
		{"utf-8", encoding.Nop, german},
	} {
		b, err := c.enc.NewEncoder().Bytes([]byte(c.text))
		if err != nil {
			t.Fatal(c.name, err)
		}
		for _, label := range []string{"", "x-unknown", "us-ascii", "utf-8"} {
			if c.name == "iso-2022-jp" && label == "utf-8" {
				continue // valid UTF-8, escape sequences and all
			}
			if got, _ := new(Decoder).Decode(label, b); got != c.text {
				t.Errorf("%s labelled %q: got %q", c.name, label, got)
			}
		}
	}
}

// commonHan uses a binary search, so the characters must be in order and of one
// length.
func TestCommonHan(t *testing.T) {
	for _, common := range []string{simplifiedCommon, traditionalCommon} {
		before := rune(0)
		for _, r := range common {
			if r <= before || len(string(r)) != 3 || commonHan(r, common) != 1 {
				t.Errorf("%c after %c is not found", r, before)
			}
			before = r
		}
		if commonHan('a', common) == 1 || commonHan('龘', common) == 1 {
			t.Error("a rare character is common")
		}
	}
}

// A mail of a thousand undeclared pieces causes one guess, not a thousand.
func TestGuessesAreBounded(t *testing.T) {
	var d Decoder
	piece := []byte("\xcf\xf0\xe8\xe2\xe5\xf2")
	for range 1000 {
		if text, guessed := d.Decode("", piece); text != "Привет" || !guessed {
			t.Fatalf("got %q", text)
		}
	}
	if d.looked > mostLooked+len(piece)+128 {
		t.Errorf("%d octets were looked at", d.looked)
	}
}
