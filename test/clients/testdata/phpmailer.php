<?php
// Sends one mail by PHPMailer, set up by the recipe in argv[1]: as statements
// about $mail, or as a WordPress plugin that hooks phpmailer_init.
foreach (['Exception', 'PHPMailer', 'SMTP'] as $class) {
    require '/usr/share/php/libphp-phpmailer/src/' . $class . '.php';
}
$hooks = [];
function add_action($name, $hook) { global $hooks; $hooks[$name][] = $hook; }

$mail = new PHPMailer\PHPMailer\PHPMailer(true);
$recipe = file_get_contents($argv[1]);
eval(str_starts_with($recipe, '<?php') ? substr($recipe, 5) : $recipe);
foreach ($hooks['phpmailer_init'] ?? [] as $hook) { $hook($mail); }
$mail->CharSet = 'utf-8';
$mail->setFrom('shop@sandbox.example', 'Shop');
$mail->addAddress('bob@example.net');
$mail->addBCC('eve@example.net');
$mail->Subject = 'Grüße';
$mail->Body = "Schöne Grüße!\n.\n.. dots\n";
$mail->send();
